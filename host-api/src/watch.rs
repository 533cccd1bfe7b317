//! A linker whose functions note what is used, before they do what they always do. For a bench with a witness only.

use crate::bench::{Bench, Seen};
use crate::state::GuestState;
use std::sync::Arc;
use wasmtime::component::{ComponentType, HasData, Lift, Linker, Lower, Resource};
use wasmtime::{Result, StoreContextMut};
use wasmtime_wasi::cli::WasiCliView as _;
use wasmtime_wasi::filesystem::Descriptor;
use wasmtime_wasi::p2::bindings::cli::environment;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    DescriptorFlags, DescriptorStat, ErrorCode, HostDescriptor as _, OpenFlags, PathFlags,
};
use wasmtime_wasi::p2::bindings::filesystem::{preopens, types};

type G = GuestState;
type Store<'a> = StoreContextMut<'a, G>;

/// The file system's types, as this wasmtime links them; `a_learned_ask_…` fails when it links another version.
const FILES: &str = "wasi:filesystem/types@0.2.12";
/// Configuration, likewise.
const CONFIG: &str = "wasi:config/store@0.2.0-rc.1";

/// Replaces the functions that are to be noted.
pub(crate) fn watch(linker: &mut Linker<G>) -> Result<()> {
    linker.allow_shadowing(true);
    environment::add_to_linker::<G, Watched>(linker, |state| View(state))?;
    preopens::add_to_linker::<G, Watched>(linker, |state| View(state))?;
    files(linker)?;
    config(linker)?;
    linker.allow_shadowing(false);
    Ok(())
}

struct Watched;

impl HasData for Watched {
    type Data<'a> = View<'a>;
}

struct View<'a>(&'a mut G);

impl View<'_> {
    fn note(&self, what: impl FnOnce(&mut Seen)) {
        self.0.note(what);
    }
}

impl environment::Host for View<'_> {
    fn get_environment(&mut self) -> Result<Vec<(String, String)>> {
        self.note(|seen| seen.env = true);
        self.0.cli().get_environment()
    }
    fn get_arguments(&mut self) -> Result<Vec<String>> {
        self.0.cli().get_arguments()
    }
    fn initial_cwd(&mut self) -> Result<Option<String>> {
        self.0.cli().initial_cwd()
    }
}

impl preopens::Host for View<'_> {
    fn get_directories(&mut self) -> Result<Vec<(Resource<Descriptor>, String)>> {
        let folders = preopens::Host::get_directories(&mut self.0.files())?;
        for (descriptor, path) in &folders {
            self.0.below.insert(descriptor.rep(), path.clone());
        }
        Ok(folders)
    }
}

impl G {
    pub(crate) fn bench(&self) -> Option<&Arc<Bench>> {
        self.capabilities.bench()
    }

    pub(crate) fn note(&self, what: impl FnOnce(&mut Seen)) {
        if let Some(bench) = self.bench() {
            bench.note(what);
        }
    }

    /// Something below a volume is used.
    fn touched(&self, descriptor: &Resource<Descriptor>, write: bool) {
        if let Some(volume) = self.below.get(&descriptor.rep()) {
            self.note(|seen| *seen.volumes.entry(volume.clone()).or_default() |= write);
        }
    }
}

type Fallible<T> = Result<(std::result::Result<T, ErrorCode>,)>;

/// What a guest gets through a folder's descriptor begins with one of these.
fn files(linker: &mut Linker<G>) -> Result<()> {
    let mut files = linker.instance(FILES)?;
    files.func_wrap_async(
        "[method]descriptor.open-at",
        |mut store: Store<'_>,
         (of, follow, path, open, flags): (
            Resource<Descriptor>,
            PathFlags,
            String,
            OpenFlags,
            DescriptorFlags,
        )| {
            Box::new(async move {
                let state = store.data_mut();
                let write = open.intersects(OpenFlags::CREATE | OpenFlags::TRUNCATE)
                    || flags.intersects(DescriptorFlags::WRITE | DescriptorFlags::MUTATE_DIRECTORY);
                state.touched(&of, write);
                let volume = state.below.get(&of.rep()).cloned();
                let opened = state.files().open_at(of, follow, path, open, flags).await;
                if let (Ok(opened), Some(volume)) = (&opened, volume) {
                    state.below.insert(opened.rep(), volume);
                }
                answer(state, opened)
            })
        },
    )?;
    files.func_wrap_async(
        "[method]descriptor.stat-at",
        |mut store: Store<'_>, (of, follow, path): (Resource<Descriptor>, PathFlags, String)| {
            Box::new(async move {
                let state = store.data_mut();
                state.touched(&of, false);
                let found = state.files().stat_at(of, follow, path).await;
                let found: Fallible<DescriptorStat> = answer(state, found);
                found
            })
        },
    )?;
    macro_rules! changes {
        ($($name:literal, $method:ident;)+) => {$(
            files.func_wrap_async(
                $name,
                |mut store: Store<'_>, (of, path): (Resource<Descriptor>, String)| {
                    Box::new(async move {
                        let state = store.data_mut();
                        state.touched(&of, true);
                        let done = state.files().$method(of, path).await;
                        answer(state, done)
                    })
                },
            )?;
        )+};
    }
    changes! {
        "[method]descriptor.create-directory-at", create_directory_at;
        "[method]descriptor.remove-directory-at", remove_directory_at;
        "[method]descriptor.unlink-file-at", unlink_file_at;
    }
    files.func_wrap_async(
        "[method]descriptor.rename-at",
        |mut store: Store<'_>,
         (of, from, to, name): (Resource<Descriptor>, String, Resource<Descriptor>, String)| {
            Box::new(async move {
                let state = store.data_mut();
                state.touched(&of, true);
                state.touched(&to, true);
                let done = state.files().rename_at(of, from, to, name).await;
                answer(state, done)
            })
        },
    )?;
    Ok(())
}

fn answer<T>(state: &mut G, outcome: std::result::Result<T, wasmtime_wasi::p2::FsError>) -> Fallible<T> {
    match outcome {
        Ok(value) => Ok((Ok(value),)),
        Err(error) => {
            let code = types::Host::convert_error_code(&mut state.files(), error)?;
            Ok((Err(code),))
        }
    }
}

/// `wasi:config`'s error, which is never given.
#[derive(ComponentType, Lift, Lower)]
#[component(variant)]
enum ConfigError {
    #[component(name = "upstream")]
    Upstream(String),
    #[component(name = "io")]
    Io(String),
}

fn config(linker: &mut Linker<G>) -> Result<()> {
    let mut config = linker.instance(CONFIG)?;
    config.func_wrap("get", |store: Store<'_>, (key,): (String,)| {
        let state = store.data();
        state.note(|seen| {
            seen.config.insert(key.clone());
        });
        let value = state.capabilities.grant().config.as_ref();
        let value = value.and_then(|values| values.get(&key).cloned());
        Ok((Ok::<Option<String>, ConfigError>(value),))
    })?;
    config.func_wrap("get-all", |store: Store<'_>, (): ()| {
        let state = store.data();
        state.note(|seen| seen.config_all = true);
        let all = state.capabilities.grant().config.clone().unwrap_or_default();
        let all: Vec<(String, String)> = all.into_iter().collect();
        Ok((Ok::<_, ConfigError>(all),))
    })?;
    Ok(())
}
