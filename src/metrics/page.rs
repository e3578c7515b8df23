//! wip
#[derive(Debug)]
pub struct Page;
#[derive(Debug)]
pub struct Sources;
