//! A scenario from beginning to end: rounds in which broker and limit take turns.
//! # Invariants: every run has a server of its own, unless a running one was given; the limit sends
//! as many bytes per delivery as the broker did in the first round.
//! # Not here: one run (`fanout`, `idle`, `churn`, `ingress`, `roundtrip`).

use super::args::{Engine, RateWord, RunArgs, Scenario, SpeechArgs, SubjectArgs, TrafficArgs};
use super::cores::{Binding, Cores};
use super::error::BenchError;
use super::fanout::Plan;
use super::figures::{self, Sheet};
use super::frame::server_head_len;
use super::mark::MARK_LEN;
use super::process::Process;
use super::progress::Progress;
use super::report::Report;
use super::speech::{Joining, Speech};
use super::stage::Stage;
use super::stopwatch::Stopwatch;
use super::subject::Subject;
use super::{churn, idle, ingress, raise_open_files, roundtrip};
use crate::cli::numbers::whole;
use serde_json::{Value, json};
use std::time::Duration;

/// Files that a process needs beside its connections; a broker keeps as many in reserve.
const FILES_BESIDE: u64 = 300;

/// What a run takes beside what it was told: start, connections, the end.
const OVERHEAD: Duration = Duration::from_millis(700);

/// A scenario, and what all of them have in common.
pub(super) struct Job<'a> {
    scenario: &'a Scenario,
    name: &'static str,
    subject: &'a SubjectArgs,
    speech: Speech,
    /// What the limit does, where there is one.
    engine: Option<Engine>,
    connections: u32,
    /// Bytes of a body.
    payload: usize,
    /// About how long a run takes.
    time: Duration,
    options: Vec<(&'static str, Value)>,
}

impl<'a> Job<'a> {
    /// The job of a scenario, if it is one that is measured.
    pub(super) fn of(scenario: &'a Scenario) -> Option<Job<'a>> {
        let job = match scenario {
            Scenario::Fanout(args) => {
                Job::traffic(scenario, "fanout", (&args.subject, &args.traffic), 1)
            }
            Scenario::Ticker(args) => {
                let mut job = Job::traffic(scenario, "ticker", (&args.subject, &args.traffic), 1);
                job.option("topics", args.topics);
                job.option("per_subscriber", args.per_subscriber);
                job
            }
            Scenario::Slow(args) => {
                let mut job = Job::traffic(scenario, "slow", (&args.subject, &args.traffic), 2);
                job.option("fraction", args.fraction);
                job.engine = None;
                job
            }
            Scenario::Idle(args) => {
                let mut job = Job::new(scenario, "idle", &args.subject);
                job.option("subscribers", args.subscribers);
                job.speak(args.speech);
                job.last(args.duration, Duration::ZERO);
                job.connections = args.subscribers;
                job.engine = Some(Engine::Write);
                job
            }
            Scenario::Churn(args) => {
                let mut job = Job::new(scenario, "churn", &args.subject);
                job.option("connections", args.connections);
                job.speak(args.speech);
                job.last(args.duration, args.warmup);
                job.connections = args.connections;
                job.engine = Some(Engine::Write);
                job
            }
            Scenario::Publish(args) => {
                let mut job = Job::new(scenario, "publish", &args.subject);
                job.option("topics", args.topics);
                job.option("window", args.window);
                job.run_of(args.run);
                job
            }
            Scenario::Roundtrip(args) => {
                let mut job = Job::new(scenario, "roundtrip", &args.subject);
                job.speak(args.speech);
                job.run_of(args.run);
                job.engine = Some(Engine::Echo);
                job
            }
            Scenario::Limit(_) | Scenario::Broker(_) => return None,
        };
        Some(job)
    }

    fn new(scenario: &'a Scenario, name: &'static str, subject: &'a SubjectArgs) -> Job<'a> {
        let mut job = Job {
            scenario,
            name,
            subject,
            speech: Speech::Json(Joining::Single),
            engine: None,
            connections: 0,
            payload: 0,
            time: OVERHEAD,
            options: Vec::new(),
        };
        match &subject.address {
            Some(endpoint) => job.option("address", endpoint.to_string()),
            None => job.option("shards", subject.shards),
        }
        job
    }

    fn traffic(
        scenario: &'a Scenario,
        name: &'static str,
        (subject, args): (&'a SubjectArgs, &TrafficArgs),
        measured: u32,
    ) -> Job<'a> {
        let mut job = Job::new(scenario, name, subject);
        job.option("subscribers", args.subscribers);
        match args.rate {
            RateWord::Max => {
                job.option("rate", "max");
                job.option("window", args.window);
            }
            RateWord::PerSecond(rate) => job.option("rate", rate),
        }
        job.speak(args.speech);
        job.run_of(args.run);
        job.time += args.run.duration * (measured - 1);
        job.connections = args.subscribers;
        job.engine = Some(args.engine());
        job
    }

    fn option(&mut self, name: &'static str, value: impl Into<Value>) {
        self.options.push((name, value.into()));
    }

    fn speak(&mut self, args: SpeechArgs) {
        self.speech = args.speech();
        let name = if matches!(self.speech, Speech::Json(_)) { "json" } else { "proto" };
        self.option("protocol", name);
        self.option("batch", args.batch);
    }

    fn run_of(&mut self, args: RunArgs) {
        self.option("payload", args.payload);
        self.payload = args.payload;
        self.last(args.duration, args.warmup);
    }

    fn last(&mut self, duration: Duration, warmup: Duration) {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.option("duration_ms", ms(duration));
        self.option("warmup_ms", ms(warmup));
        self.time += duration + warmup;
    }

    /// Whether a program reads the figures.
    pub(super) fn is_json(&self) -> bool {
        self.subject.json
    }

    /// Runs all rounds.
    pub(super) fn run(mut self) -> Result<Report, BenchError> {
        self.check_open_files()?;
        let cores = Cores::divide(self.binding())?;
        let engine = self.engine.filter(|_| !self.subject.no_limit);
        let rounds = self.subject.rounds;
        let parts = usize::from(rounds) * if engine.is_some() { 2 } else { 1 };
        let stage = Stage {
            watch: Stopwatch::start(),
            progress: Progress::new(parts, self.time),
            own: Process::of(std::process::id()),
        };
        let mut report = Report { scenario: self.name, ..Report::default() };
        let mut limit_len = None;
        for round in 1..=rounds {
            stage.progress.say(format!("{}, round {round} of {rounds}: broker", self.name));
            let broker = Subject::broker(self.subject, self.speech, &cores)?;
            let sheet = self.turn(&stage, &broker, self.payload)?;
            drop(broker);
            let len = *limit_len.get_or_insert_with(|| self.limit_len(&sheet));
            report.broker.push(sheet);
            if let Some(engine) = engine {
                stage.progress.say(format!("{}, round {round} of {rounds}: limit", self.name));
                let limit = Subject::limit(engine, &cores)?;
                report.limit.push(self.turn_of_limit(&stage, &limit, len)?);
            }
        }
        report.options = std::mem::take(&mut self.options);
        report.options.push(("rounds", json!(rounds)));
        report.bound_to = cores.server;
        Ok(report)
    }

    fn turn(&self, stage: &Stage, subject: &Subject, len: usize) -> Result<Sheet, BenchError> {
        match self.scenario {
            Scenario::Fanout(args) => Plan::fanout(args).run((stage, subject), &args.traffic, len),
            Scenario::Ticker(args) => Plan::ticker(args).run((stage, subject), &args.traffic, len),
            Scenario::Slow(args) => Plan::slow(args).run_slow((stage, subject), &args.traffic),
            Scenario::Idle(args) => idle::run(stage, subject, args),
            Scenario::Churn(args) => churn::run(stage, subject, args),
            Scenario::Publish(args) => ingress::run(stage, subject, args),
            Scenario::Roundtrip(args) => roundtrip::run(stage, subject, args),
            Scenario::Limit(_) | Scenario::Broker(_) => Ok(Sheet::default()),
        }
    }

    fn turn_of_limit(
        &self,
        stage: &Stage,
        subject: &Subject,
        len: usize,
    ) -> Result<Sheet, BenchError> {
        match self.scenario {
            Scenario::Roundtrip(args) => roundtrip::run_limit(stage, subject, (args, len)),
            _ => self.turn(stage, subject, len),
        }
    }

    /// The length of the limit's bodies, or of the echo's messages, with which as many bytes arrive
    /// as did from the broker.
    fn limit_len(&self, broker: &Sheet) -> usize {
        let wire = broker.get(&figures::WIRE).map_or(0, whole);
        let wire = usize::try_from(wire).unwrap_or_default();
        if self.engine == Some(Engine::Echo) {
            return wire.max(1);
        }
        let head_len = server_head_len(wire.saturating_sub(server_head_len(0)));
        wire.saturating_sub(head_len).max(MARK_LEN)
    }

    fn binding(&self) -> Binding {
        match (self.subject.no_pin, &self.subject.address, self.subject.pid) {
            (true, _, _) | (false, Some(_), None) => Binding::Off,
            (false, Some(_), Some(pid)) => Binding::Like(pid),
            (false, None, _) => Binding::Server(usize::from(self.subject.shards)),
        }
    }

    fn check_open_files(&self) -> Result<(), BenchError> {
        let allowed = raise_open_files();
        let needed = u64::from(self.connections) + FILES_BESIDE;
        if needed > allowed {
            return Err(BenchError::OpenFiles { needed, allowed });
        }
        Ok(())
    }
}
