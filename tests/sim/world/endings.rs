//! Moments at which all can be judged: everything has arrived, or everybody has gone.
//! # Not here: the steps between (`world`).

use super::{ROUNDS_MAX, TICK_MS, TICKS_TO_EMPTY, Trace, World, place};
use crate::history::{Fact, TopicPosition};
use std::collections::BTreeMap;

impl World {
    /// Lets everything that is on its way arrive, without time passing.
    fn settle(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let mut moved = false;
            for index in (0..self.life.served.len()).rev() {
                moved |= self.life.read(index);
            }
            for station in 0..self.scenario.shards {
                moved |= self.life.turn(station);
                for index in (0..self.life.stations[station].full.len()).rev() {
                    moved |= self.life.pump(station, index);
                }
            }
            self.note_most();
            let before = self.history.len();
            for client in &mut self.clients {
                let waiting = client.link.as_ref().map_or(0, |link| link.pipe.waiting());
                client.receive(usize::MAX, self.now_ms, &mut self.history);
                moved |= waiting > 0;
            }
            if !moved && self.history.len() == before {
                return;
            }
        }
        self.note(Fact::Restless {});
    }

    /// Lets the time pass that the slowest rate may need, from one thing that is due to the next.
    fn rest(&mut self) {
        let end = self.now_ms + self.scenario.quiet_ms();
        while self.now_ms < end {
            let due = self.life.next_alarm().and_then(|due| u64::try_from(due.as_millis()).ok());
            let to = due.unwrap_or(end).clamp(self.now_ms + 1, end.min(self.now_ms + TICK_MS));
            self.pass_ms(to - self.now_ms);
            self.settle();
        }
    }

    pub(super) fn quiet(&mut self) {
        let before = self.history.len();
        self.settle();
        self.rest();
        for held in self.life.peaks().collect::<Vec<_>>() {
            self.note(Fact::Held(held));
        }
        let mut tops = Vec::new();
        let mut rosters = BTreeMap::new();
        for topic in &self.scenario.topics {
            if let Some(position) = self.life.top(topic) {
                tops.push(TopicPosition { topic: (*topic).into(), position: place(position) });
            }
            if let Some(roster) = self.life.roster(topic) {
                rosters.insert((*topic).to_owned(), roster);
            }
        }
        self.note(Fact::Quiet { tops, rosters });
        if self.trace == Trace::Told {
            println!("{:>7} ms  Quiet", self.now_ms);
            for record in &self.history[before..] {
                println!(
                    "            {}",
                    serde_json::to_string(&record.fact).expect("plain data")
                );
            }
        }
    }

    /// Everybody goes, some in good order and some not, and time passes.
    pub(super) fn empty(&mut self) {
        for client in &mut self.clients {
            if self.chance.chance(50) {
                client.leave();
            } else {
                client.cut(self.now_ms, &mut self.history);
            }
        }
        self.settle();
        for _ in 0..TICKS_TO_EMPTY {
            self.pass_ms(TICK_MS);
            for station in 0..self.scenario.shards {
                while self.life.turn(station) {}
            }
            self.life.sweep();
        }
        self.settle();
        let gauges = self.life.gauges(&self.scenario.topics);
        self.note(Fact::Empty { gauges });
    }
}
