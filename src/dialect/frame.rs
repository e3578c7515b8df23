//! To be written.
use crate::topics::message::Wire;
use bytes::Bytes;
#[derive(Debug)]
pub(super) struct Buffer(Vec<u8>);
impl Buffer {
    pub(super) fn new(_wire: Wire) -> Buffer {
        unimplemented!()
    }
    pub(super) fn body(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
    pub(super) fn finish(self) -> Bytes {
        unimplemented!()
    }
}
