//! A new component's folder, in a publisher's language: the examples of `guest-examples`, made to stand alone.
//!
//! What is written builds outside of this repository and without anything downloaded but what the language's own tool pins.

use crate::error::CliError;
use redan_protocol::ComponentName;
use std::path::Path;

/// A language there is an example for.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum Language {
    /// cargo, `wasm32-wasip2`
    Rust,
    /// npm, componentize-js
    #[value(alias = "js")]
    Javascript,
    /// pip, componentize-py
    Python,
}

/// A file: where it goes, and what is in it.
type Written = (&'static str, String);

macro_rules! example {
    ($path:literal) => {
        include_str!(concat!("../../guest-examples/", $path)).to_owned()
    };
}

/// Writes the folder; what to do next.
pub fn component(language: Language, folder: &Path) -> Result<String, CliError> {
    let name = folder
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    // Cargo wants a letter first, too.
    let named = name.starts_with(|first: char| first.is_ascii_lowercase())
        && ComponentName::parse(&format!("acme/{name}")).is_ok();
    if !named {
        return Err(CliError::Usage {
            what: format!("{name:?} is no name of a component"),
            remedy: "name the folder as the component: lower-case letters, digits and hyphens, a letter first",
        });
    }
    let (files, steps) = match language {
        Language::Rust => rust(name),
        Language::Javascript => javascript(name),
        Language::Python => python(name),
    };
    let failed = |path: &Path, error| CliError::file(path, &error);
    // Nothing of somebody's is written over.
    if let Some(parent) = folder.parent().filter(|parent| *parent != Path::new("")) {
        std::fs::create_dir_all(parent).map_err(|error| failed(parent, error))?;
    }
    std::fs::create_dir(folder).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => CliError::Usage {
            what: format!("{} is there already", folder.display()),
            remedy: "name a folder that does not exist yet",
        },
        _ => failed(folder, error),
    })?;
    for (path, text) in files {
        let path = folder.join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|error| failed(parent, error))?;
        }
        std::fs::write(&path, text).map_err(|error| failed(&path, error))?;
    }
    let [tools, build, wasm] = steps;
    Ok(format!(
        "{folder} holds an HTTP service, ready to build:\n\
         \x20 cd {folder}\n\
         \x20 {tools}\n\
         \x20 {build}\n\
         \x20 redan dev {wasm} --learn ask.toml --name acme/{name}   # use it, then Ctrl-C: the ask it needs\n\
         \x20 redan check {wasm} --ask ask.toml",
        folder = folder.display()
    ))
}

/// What the example needs once, how it is built, and what comes out.
type Steps = [String; 3];

fn rust(name: &str) -> (Vec<Written>, Steps) {
    let manifest = format!(
        "[package]\nname = \"{name}\"\nversion = \"1.0.0\"\nedition = \"2024\"\npublish = false\n\n\
         [lib]\ncrate-type = [\"cdylib\"]\n\n\
         [features]\n# A release that says it is unhealthy: devices must go back by themselves.\nunhealthy = []\n\n\
         [dependencies]\nwasip2 = \"2\"\nwit-bindgen = \"0.61\"\n\n\
         [profile.release]\nopt-level = \"s\"\nlto = true\ncodegen-units = 1\nstrip = true\npanic = \"abort\"\n\n\
         # Its own, also below another's folder.\n[workspace]\n"
    );
    let files = vec![
        ("Cargo.toml", manifest),
        (".gitignore", "target\n".to_owned()),
        ("src/lib.rs", example!("rust/thermo/src/lib.rs")),
        ("wit/thermo.wit", example!("rust/thermo/wit/thermo.wit")),
        (
            "wit/deps/keyvalue.wit",
            example!("rust/thermo/wit/deps/keyvalue.wit"),
        ),
        (
            "wit/deps/workload.wit",
            example!("rust/thermo/wit/deps/workload.wit"),
        ),
    ];
    let built = name.replace('-', "_");
    let steps = [
        "rustup target add wasm32-wasip2   # once".to_owned(),
        "cargo build --release --target wasm32-wasip2".to_owned(),
        format!("target/wasm32-wasip2/release/{built}.wasm"),
    ];
    (files, steps)
}

fn wit() -> [Written; 4] {
    [
        ("wit/world.wit", example!("wit/world.wit")),
        ("wit/deps/clocks.wit", example!("wit/deps/clocks.wit")),
        ("wit/deps/http.wit", example!("wit/deps/http.wit")),
        ("wit/deps/io.wit", example!("wit/deps/io.wit")),
    ]
}

fn javascript(name: &str) -> (Vec<Written>, Steps) {
    let mut files = vec![
        ("app.js", example!("js/app.js")),
        ("build.mjs", example!("js/build.mjs")),
        ("package.json", example!("js/package.json")),
        ("package-lock.json", example!("js/package-lock.json")),
        (".gitignore", "node_modules\n*.wasm\n".to_owned()),
    ];
    files.extend(wit());
    let steps = [
        "npm ci".to_owned(),
        format!("node build.mjs wit {name}.wasm"),
        format!("{name}.wasm"),
    ];
    (files, steps)
}

fn python(name: &str) -> (Vec<Written>, Steps) {
    let mut files = vec![
        ("app.py", example!("python/app.py")),
        ("requirements.txt", example!("python/requirements.txt")),
        (".gitignore", ".venv\n*.wasm\n__pycache__\n".to_owned()),
    ];
    files.extend(wit());
    let steps = [
        "python3 -m venv .venv && .venv/bin/pip install --require-hashes -r requirements.txt".to_owned(),
        format!(".venv/bin/componentize-py -d wit -w service componentize app -o {name}.wasm"),
        format!("{name}.wasm"),
    ];
    (files, steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_stands_alone() {
        let folder = tempfile::tempdir().unwrap();
        for (language, main) in [
            (Language::Rust, "src/lib.rs"),
            (Language::Javascript, "app.js"),
            (Language::Python, "app.py"),
        ] {
            let made = folder.path().join(format!("deep/{language:?}").to_lowercase());
            let said = component(language, &made).unwrap();
            assert!(said.contains("redan dev "), "{said}");
            assert!(made.join(main).exists());
            // Nothing is inherited from a workspace, and nothing leads out of the folder.
            let manifest = std::fs::read_to_string(made.join("Cargo.toml")).unwrap_or_default();
            assert!(!manifest.contains("workspace = true") && !manifest.contains("path ="));
            assert!(!said.contains(".."), "{said}");
        }
    }

    #[test]
    fn nothing_is_written_over_and_no_name_is_taken_that_nothing_could_be_published_under() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |name: &str| match component(Language::Python, &folder.path().join(name)) {
            Err(CliError::Usage { what, .. }) => what,
            other => panic!("{other:?}"),
        };
        std::fs::create_dir(folder.path().join("mine")).unwrap();
        assert!(refused("mine").ends_with("is there already"));
        for wrong in ["Thermo", "a b", "..", "7up"] {
            assert!(refused(wrong).ends_with("is no name of a component"), "{wrong}");
        }
    }
}
