//! A device of the attack's own on the stage's fleet: enrolled honestly, so that only the attack is not honest.

use anyhow::{Context, Result};
use redan_kit::stage::await_that;
use redan_kit::{DeviceView, Stage};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// An enrolled device under attack.
#[derive(Debug)]
pub struct Guinea {
    stage: Stage,
    id: String,
}

impl Guinea {
    /// Enrols it at the stage's server.
    pub fn enrol(stage: &Stage, id: &str) -> Result<Self> {
        let mut stage = Stage::attach(stage.programs.clone(), &stage.folder, stage.server()?);
        stage.prepare_device(id)?;
        Ok(Self {
            stage,
            id: id.to_owned(),
        })
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its state folder.
    pub fn state(&self) -> PathBuf {
        self.stage.folder.join("devices").join(&self.id).join("state")
    }

    /// Starts it towards a server, the honest one or another that holds its keys.
    pub fn start(&mut self, server: SocketAddr) -> Result<()> {
        self.stop()?;
        self.stage = self.stage.towards(server)?;
        self.stage.start_device(&self.id)
    }

    /// What the server it talks to knows of it.
    fn view(&self) -> Result<DeviceView> {
        let views = self.stage.views()?;
        views
            .into_iter()
            .find(|view| view.device == self.id)
            .context("the server does not know the device")
    }

    /// Waits until it reports a refusal, and gives the code.
    pub fn await_refusal(&self, within: Duration) -> Result<String> {
        self.await_view("a refusal", within, |view| view.refusal.clone())
    }

    /// Waits until it has committed a set.
    pub fn await_set(&self, set: &str, within: Duration) -> Result<()> {
        self.await_view("the set to be committed", within, |view| {
            (view.set.as_deref() == Some(set) && view.refusal.is_none()).then_some(())
        })
    }

    /// Waits until it says that it still runs a set in health, refusal or not.
    pub fn await_kept(&self, set: &str, within: Duration) -> Result<()> {
        self.await_view("the set to be kept", within, |view| {
            let healthy = view.slots.iter().all(|slot| slot.health == "healthy");
            (view.set.as_deref() == Some(set) && healthy && !view.slots.is_empty()).then_some(())
        })
    }

    fn await_view<T>(
        &self,
        what: &str,
        within: Duration,
        look: impl Fn(&DeviceView) -> Option<T>,
    ) -> Result<T> {
        await_that(what, within, || {
            let view = self.view()?;
            Ok(match look(&view) {
                Some(found) => Ok(found),
                None => Err(serde_json::to_string(&view)?),
            })
        })
    }

    /// Stops it in order.
    pub fn stop(&mut self) -> Result<()> {
        self.stage.stop()
    }
}
