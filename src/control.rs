//! What an operator asks of a running broker, on its way to whoever owns that broker, and the answer
//! on its way back.
//! # Invariants: requests are carried out one after another; each is answered, or its asker sees that
//! nobody is there; an answer names settings and never says what secrets they hold.
//! # Not here: carrying them out (`server`, `cli`), who may ask (`http`).

use tokio::sync::{mpsc, oneshot};

/// Requests that may wait.
const WAITING_MAX: usize = 8;

/// Where requests are handed in.
#[derive(Clone, Debug)]
pub struct Control(mpsc::Sender<Request>);

/// Where they come out.
#[derive(Debug)]
pub struct Requests(mpsc::Receiver<Request>);

/// What is asked. Whoever carries it out answers.
#[derive(Debug)]
pub enum Request {
    /// Read the configuration anew and put it into force.
    Reload(oneshot::Sender<Result<Changes, BadReload>>),
    /// Drain, and end. Answered when it has begun.
    Drain(oneshot::Sender<()>),
}

/// What became of a new configuration. Every list is sorted, and holds the keys of settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Settings that are in force now and were not.
    pub changed: Vec<String>,
    /// Settings whose files were read anew, whether they hold something else or not.
    pub read_anew: Vec<String>,
    /// Settings that have changed and stay as they were until the broker is started anew.
    pub needs_restart: Vec<String>,
}

/// Why a new configuration is not in force. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadReload(pub String);

/// Too many requests wait, or nobody is there to carry them out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nobody carries out the request")]
pub struct Unheard;

/// Both ends of a way from operators to the owner of a broker.
pub fn channel() -> (Control, Requests) {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    (Control(sender), Requests(receiver))
}

impl Control {
    /// Has the configuration read anew and put into force, wholly or not at all.
    ///
    /// # Errors
    /// [`Unheard`]; inside of it [`BadReload`], and then nothing has changed.
    pub async fn reload(&self) -> Result<Result<Changes, BadReload>, Unheard> {
        self.ask(Request::Reload).await
    }

    /// Has the broker drain and end. Returns when it has begun to.
    ///
    /// # Errors
    /// [`Unheard`].
    pub async fn drain(&self) -> Result<(), Unheard> {
        self.ask(Request::Drain).await
    }

    async fn ask<T>(&self, request: fn(oneshot::Sender<T>) -> Request) -> Result<T, Unheard> {
        let (answer, answered) = oneshot::channel();
        self.0.try_send(request(answer)).map_err(|_| Unheard)?;
        answered.await.map_err(|_| Unheard)
    }
}

impl Requests {
    /// The next request. Waits for ever when nobody can ask any more.
    pub async fn next(&mut self) -> Request {
        match self.0.recv().await {
            Some(request) => request,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_is_answered_by_whoever_carries_it_out() {
        let (control, mut requests) = channel();
        let carried_out = async {
            let Request::Reload(answer) = requests.next().await else { panic!("not a reload") };
            answer.send(Err(BadReload("because".to_owned()))).expect("somebody waits");
            let Request::Drain(answer) = requests.next().await else { panic!("not a drain") };
            answer.send(()).expect("somebody waits");
        };
        let asked = async { (control.reload().await, control.drain().await) };
        let (asked, ()) = tokio::join!(asked, carried_out);
        assert_eq!(asked, (Ok(Err(BadReload("because".to_owned()))), Ok(())));
    }

    #[tokio::test]
    async fn nobody_waits_for_a_broker_that_is_gone_or_busy() {
        let (control, requests) = channel();
        let waiting: Vec<_> = (0..WAITING_MAX)
            .map(|_| {
                let control = control.clone();
                tokio::spawn(async move { control.drain().await })
            })
            .collect();
        while control.0.capacity() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(control.reload().await, Err(Unheard), "there is no place left");
        drop(requests);
        for asker in waiting {
            assert_eq!(asker.await.expect("a task"), Err(Unheard));
        }
    }
}
