//! Follows a topic or filter and says what happens to it: `cargo run --example follow -- URL TOPIC`, for instance
//! with `fanfare demo` running, `follow ws://127.0.0.1:7600/ws 'ticker.*'`. Stop the broker and start it
//! again to see what is told then.
//! # Not here: the whole of the client, which is `fanfare::client`.
#![allow(clippy::print_stdout, reason = "that is what it is for")]

use fanfare::client::{Client, Error, Event, State};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().unwrap_or_else(|| "ws://127.0.0.1:7600/ws".to_owned());
    let topic = arguments.next().unwrap_or_else(|| "ticker.*".to_owned());
    let client = Client::connect(&url).open().await?;
    let mut states = client.states();
    let mut prices = client.subscribe(&topic).snapshot().max_hz(2.0).await?;
    loop {
        tokio::select! {
            Some(state) = states.next() => if let State::Waiting { reason, delay } = state {
                println!("no connection, again in {delay:?}: {reason}");
            },
            event = prices.next() => match event.transpose()? {
                Some(Event::Message(message)) => {
                    let text = String::from_utf8_lossy(message.bytes());
                    println!("{} {}: {text}", message.topic, message.offset);
                }
                Some(Event::Gap(gap)) => {
                    println!("{} {} to {} are missing: {}", gap.topic, gap.from, gap.to, gap.reason.name());
                }
                Some(Event::Recovered(recovery)) => match recovery.loss {
                    None => println!("{} goes on where it was", recovery.topic),
                    Some(loss) => println!("{} must be loaded anew: {}", recovery.topic, loss.name()),
                },
                Some(_) => {}
                None => return Ok(()),
            },
        }
    }
}
