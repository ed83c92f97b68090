//! Scenarios of one engine with its model: a [`World`] and what it lives through.

use std::sync::Arc;

use strongroom::io::sim::SimFs;
use strongroom::{ErrorKind, Options, Result};

use super::{Check, Copier, Depth, Machine};
use crate::oracle::read_all;
use crate::world::{World, is_failure_of_the_machine};

/// What is done to a world.
pub(super) type Work = Arc<dyn Fn(&mut World) -> Result<()> + Send + Sync>;

/// A world and its scenario.
pub(super) struct OnWorld {
    world: World,
    work: Work,
}

/// A world after `setup`, killed, that will live through `work`.
pub(super) fn prepared(
    options: Options,
    setup: impl FnOnce(&mut World) -> Result<()>,
    work: impl Fn(&mut World) -> Result<()> + Send + Sync + 'static,
) -> Box<dyn Machine> {
    let mut world = World::new(options);
    setup(&mut world).unwrap_or_else(|e| panic!("setup: {e:?}"));
    world.kill();
    Box::new(OnWorld {
        world,
        work: Arc::new(work),
    })
}

impl Machine for OnWorld {
    fn fs(&self) -> &SimFs {
        &self.world.fs
    }

    fn copier(&self) -> Copier {
        let (copier, work) = (self.world.copier(), self.work.clone());
        Box::new(move |fs| {
            Box::new(OnWorld {
                world: copier(fs).world(),
                work: work.clone(),
            })
        })
    }

    fn stamp(&self) -> u64 {
        let known = self.world.known();
        let complete = known.copies.iter().filter(|c| c.complete).count();
        known.oracle.stamp() ^ ((known.copies.len() * 100 + complete) as u64) << 40
    }

    fn run(&mut self) -> Result<()> {
        let work = self.work.clone();
        work(&mut self.world)
    }

    fn kill(&mut self) {
        self.world.kill();
    }

    fn goes_on(&mut self, full: bool) -> Check {
        let world = &mut self.world;
        if !world.is_open() {
            return Ok(());
        }
        world.verify_late()?;
        let found = read_all(world.engine()).map_err(|e| format!("reads fail afterwards: {e:?}"))?;
        let tenants = {
            let known = world.known();
            if known.oracle.find(&found).is_none() {
                return Err(format!(
                    "reads differ afterwards: {}",
                    known.oracle.explain(&found)
                ));
            }
            known.oracle.tenants()
        };
        let mut resumed = true;
        for name in tenants {
            match world.put(&name, "room", 1, 100) {
                Ok(()) => {}
                Err(e) if full && e.kind() == ErrorKind::NoSpace => {
                    return Err(format!("writes do not resume when there is room: {e:?}"));
                }
                // A failed sync, also one that a full disk refused, is final until reopened.
                Err(e) if is_failure_of_the_machine(&e) => resumed = false,
                Err(e) => return Err(format!("a write afterwards: an error of the wrong kind: {e:?}")),
            }
        }
        let found = read_all(world.engine()).map_err(|e| format!("reads fail after a write: {e:?}"))?;
        let mut known = world.known();
        match known.oracle.find(&found) {
            // What failed for want of room was not applied, and never will be.
            Some(answer) if full && resumed => known.oracle.accept(&answer),
            Some(_) => {}
            None => return Err("reads differ after a write".to_string()),
        }
        Ok(())
    }

    fn examine(&mut self, depth: Depth) -> Check {
        match depth {
            Depth::Open => self.world.reopen(),
            Depth::Look => {
                self.world.reopen()?;
                self.world.moment("").examine_copies(&self.world)
            }
            Depth::Work(how) => {
                let image = self.world.fs.fork();
                self.world.moment("").examine(image, how)
            }
        }
    }
}
