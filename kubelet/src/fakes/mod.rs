//! Stand-ins for what is outside: an API server and a runtime in memory, and a clock that others can not hold up.

pub(crate) mod api;
pub(crate) mod host;
pub(crate) mod runtime;

/// How long the processor has worked for this thread. A bound on work is measured so: in the time of the wall the thread
/// stands still for as long as others run.
pub(crate) fn worked() -> std::time::Duration {
    nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID.now().expect("a clock of every thread").into()
}
