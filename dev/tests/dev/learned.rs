//! What is learned from a run suffices for the same run, and nothing in it is more than that run needed.

use crate::{bench, guest, ran, site, text};
use std::path::Path;
use std::process::Output;

/// A place to run `collect` in, which uses everything a job can be granted.
struct Scene {
    folder: tempfile::TempDir,
    site: String,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("state")).unwrap();
        std::fs::create_dir(folder.path().join("seed")).unwrap();
        std::fs::write(folder.path().join("seed/unit"), "C\n").unwrap();
        let site = format!("site.example:80={}", site::open());
        Self { folder, site }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn run(&self, more: &[&str]) -> Output {
        let collect = guest::built("collect.wasm");
        let state = format!("{}::/state", self.path("state"));
        let seed = format!("{}::/seed", self.path("seed"));
        let words = [
            "-q",
            &collect,
            "--env",
            "CITY=Ulm",
            "--config",
            "site=site.example",
            "--resolve",
            &self.site,
            "--dir",
            &state,
            "--dir",
            &seed,
        ];
        ran(bench(&[&words[..], more].concat()))
    }

    /// The ask of one run, read back.
    fn learn(&self) -> String {
        let ask = self.path("ask.toml");
        let ended = self.run(&["--learn", &ask, "--name", "acme/collect", "--", "--once"]);
        assert_eq!(text(&ended.stdout), "Ulm 21C\n", "{ended:?}");
        std::fs::read_to_string(ask).unwrap()
    }

    fn under(&self, ask: &str) -> Output {
        let path = self.path("changed.toml");
        std::fs::write(&path, ask).unwrap();
        self.run(&["--ask", &path])
    }
}

/// Lines that narrow what others grant, or say that the workload needs it: without one, more is allowed and not less.
fn narrows(line: &str) -> bool {
    let key = line.split(" = ").next().unwrap_or_default();
    let limits = ["memory_total", "table_elements", "handles", "cpu", "[limits]"];
    ["required", "quota", "budget", "max_bytes_per_call", "paths"].contains(&key) || limits.contains(&key)
}

#[test]
fn a_learned_ask_suffices_and_without_any_line_that_grants_it_does_not() {
    let scene = Scene::new();
    let learned = scene.learn();
    let ended = scene.under(&learned);
    assert_eq!(text(&ended.stdout), "Ulm 21C\n", "{ended:?}\n{learned}");
    let lines: Vec<&str> = learned.lines().collect();
    let mut tried = 0;
    for (nth, line) in lines.iter().enumerate() {
        if line.is_empty() || line.starts_with('#') || narrows(line) {
            continue;
        }
        let without: Vec<&str> = lines
            .iter()
            .enumerate()
            .filter(|(at, _)| *at != nth)
            .map(|(_, line)| *line)
            .collect();
        let ended = scene.under(&without.join("\n"));
        let unharmed = ended.status.success() && text(&ended.stdout) == "Ulm 21C\n";
        assert!(!unharmed, "it ran without {line:?}");
        tried += 1;
    }
    assert!(tried > 25, "only {tried} lines were tried:\n{learned}");
}

#[test]
fn a_learned_ask_names_what_was_used_and_nothing_beside_it() {
    let scene = Scene::new();
    let learned = scene.learn();
    let origin = "allow = [\"http://site.example:80\"]";
    assert_eq!(learned.matches(origin).count(), 2, "a rule for each method");
    for line in [
        "args = [\"--once\"]",
        "paths = [\"/celsius\"]",
        "paths = [\"/count\"]",
        "label = \"readings\"",
        "allow = [\"CITY\"]",
        "keys = [\"site\"]",
        "max_bytes_per_call = \"16B\"",
        "wall = true",
    ] {
        assert_eq!(learned.matches(line).count(), 1, "{line} in\n{learned}");
    }
    let rule = |path: &str| {
        let before = &learned[..learned.find(path).unwrap()];
        before[before.rfind("methods").unwrap()..]
            .lines()
            .next()
            .unwrap()
            .to_owned()
    };
    assert_eq!(rule("/celsius"), "methods = [\"GET\"]");
    assert_eq!(rule("/count"), "methods = [\"POST\"]");
    let mode = |name: &str| {
        learned[learned.find(name).unwrap()..]
            .lines()
            .nth(1)
            .unwrap()
            .to_owned()
    };
    assert_eq!(mode("name = \"seed\""), "mode = \"ro\"");
    assert_eq!(mode("name = \"state\""), "mode = \"rw\"");
    assert!(
        !learned.contains("[net.sockets]") && !learned.contains("\n[[trigger"),
        "{learned}"
    );
}

#[test]
fn a_narrowing_line_that_is_tighter_than_the_run_ends_it() {
    let scene = Scene::new();
    let learned = scene.learn();
    for (from, to, code) in [
        ("memory_total = \"", "memory_total = \"64KiB\" # ", "memory-limit"),
        (
            "max_bytes_per_call = \"16B\"",
            "max_bytes_per_call = \"15B\"",
            "random-limit",
        ),
        ("table_elements = ", "table_elements = 1 # ", "table-limit"),
    ] {
        let ended = scene.under(&learned.replacen(from, to, 1));
        crate::refused(&ended, code, 134);
    }
    let ended = scene.under(&learned.replace("paths = [\"/count\"]", "paths = [\"/other\"]"));
    assert!(
        text(&ended.stderr).contains("no answer from the site"),
        "{ended:?}"
    );
}

#[test]
fn what_was_not_used_is_not_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let ask = folder.path().join("ask.toml");
    let job = guest::built("conformance-job.wasm");
    let lent = format!("{}::/state", folder.path().display());
    let words = [
        "-q",
        &job,
        "--learn",
        ask.to_str().unwrap(),
        "--dir",
        &lent,
        "--env",
        "A=1",
        "--",
        "exit",
    ];
    let ended = ran(bench(&words));
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    let learned = std::fs::read_to_string(&ask).unwrap();
    for section in [
        "[clock]",
        "[random]",
        "[log]",
        "[env]",
        "[[fs]]",
        "[[kv]]",
        "[[net.http]]",
        "[config]",
    ] {
        assert!(
            !learned.lines().any(|line| line == section),
            "{section} in\n{learned}"
        );
    }
    assert!(
        learned.contains("[net.sockets]"),
        "its standard library imports them"
    );
    assert!(Path::new(&ask).exists());
}
