//! Tests of `redan-trust` from outside: repositories made and signed here, read as a device reads them.

//mod decide;
mod lookup;
mod maker;
//mod properties;
mod root;
//mod statement;
mod workflow;
