//! Whether the agent answers while it is scraped: the time of `/healthz`, and for how long the lock on its state is held.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::fixture::Agent;
use super::report::Section;
use super::stats::{Spread, percentile};
use crate::service;

/// For how long it is scraped, without a pause.
const SCRAPED: Duration = Duration::from_secs(10);
/// Time between two questions whether it is healthy.
const PAUSE: Duration = Duration::from_millis(15);
/// Scrapes at one time: a server's, and what a listening metrics-api asks for, which reads as much.
const SCRAPERS: usize = 2;

/// What was seen in some rounds.
#[derive(Default)]
pub(super) struct Answers {
    healthy_ms: Vec<f64>,
    holds_ms: Vec<f64>,
    /// CPU time of these holds.
    worked_ms: Vec<f64>,
    holders: Vec<String>,
    scrapes: usize,
}

impl Answers {
    /// Scrapes the agent for a while, and asks meanwhile whether it is healthy.
    pub(super) fn measure(&mut self, agent: &Agent) -> Result<()> {
        // What was before does not count.
        service::get(agent.address, "/debug/lock")?;
        let over = AtomicBool::new(false);
        let scrapes = thread::scope(|scope| -> Result<usize> {
            let scrape = || -> Result<usize> {
                let mut scrapes = 0;
                while !over.load(Ordering::Relaxed) {
                    service::get(agent.address, "/metrics")?;
                    scrapes += 1;
                }
                Ok(scrapes)
            };
            let scrapers: Vec<_> = (0..SCRAPERS).map(|_| scope.spawn(scrape)).collect();
            let began = Instant::now();
            let asked = (|| {
                while began.elapsed() < SCRAPED {
                    let asked = Instant::now();
                    service::get(agent.address, "/healthz")?;
                    self.healthy_ms.push(asked.elapsed().as_secs_f64() * 1e3);
                    thread::sleep(PAUSE);
                }
                anyhow::Ok(())
            })();
            over.store(true, Ordering::Relaxed);
            let scrapes = scrapers.into_iter().map(|it| it.join().expect("a scraper does not panic")).sum();
            asked?;
            scrapes
        })?;
        self.scrapes += scrapes;
        let longest = service::get(agent.address, "/debug/lock")?;
        if let [took, worked, by] = longest.split_whitespace().collect::<Vec<_>>()[..] {
            let ms = |seconds: &str| {
                Ok::<_, anyhow::Error>(seconds.parse::<f64>().context("/debug/lock tells seconds")? * 1e3)
            };
            self.holds_ms.push(ms(took)?);
            self.worked_ms.push(ms(worked)?);
            self.holders.push(by.to_owned());
        }
        Ok(())
    }

    /// Adds the figures to a section.
    pub(super) fn report(&self, section: &mut Section) {
        let slowest = percentile(&self.healthy_ms, 0.99);
        section.limited("/healthz while it is scraped, 99th percentile", "ms", Spread::one(slowest), 20.0);
        section.figure("/healthz while it is scraped", "ms", Spread::of(&self.healthy_ms));
        let longest = percentile(&self.holds_ms, 1.0);
        section.limited("the longest hold of the lock on the agent's state", "ms", Spread::one(longest), 5.0);
        section.figure("the longest hold of each round", "ms", Spread::of(&self.holds_ms));
        section.figure("CPU time within it", "ms", Spread::of(&self.worked_ms));
        section.note(format!(
            "{} scrapes without a pause, {SCRAPERS} at one time, since a listening metrics-api has the agent read as much as a scrape \
             does. The lock was held longest at {}.",
            self.scrapes,
            self.holders.join(", ")
        ));
    }
}
