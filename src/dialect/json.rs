//! To be written.
use super::{BadCommand, Command, Event};
use crate::topics::message::Message;
pub(super) fn decode(_bytes: &[u8]) -> Result<Command, BadCommand> {
    unimplemented!()
}
pub(super) fn encode(_id: u64, _event: &Event, _out: &mut Vec<u8>) {
    unimplemented!()
}
pub(super) fn encode_message(_message: &Message, _out: &mut Vec<u8>) {
    unimplemented!()
}
