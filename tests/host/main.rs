//! Tests that need nothing of the machine.

mod architecture;
