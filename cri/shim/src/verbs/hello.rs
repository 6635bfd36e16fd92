//! `Hello`: who we are and all that we know.

use crate::sandbox::Lifecycle;
use crate::supervisor::Shim;
use crate::task::Call;
use shim_protocol::{Answer, Hello, State, VERSION};

/// Subscribes the connection, if it asks for that, and tells the whole state.
pub(super) fn hello(shim: &mut Shim, call: Call, hello: &Hello) -> Answer {
    if let Some(connection) = shim.connections.iter_mut().find(|connection| connection.key == call.connection) {
        connection.subscribed = hello.subscribe;
    }
    let (sandbox, ready) = match &shim.lifecycle {
        Lifecycle::Running(sandbox) => {
            let told = (sandbox.config.clone(), sandbox.processes.clone());
            (Some(told), sandbox.is_ready())
        }
        Lifecycle::Fresh | Lifecycle::Starting(_) | Lifecycle::Over => (None, false),
    };
    let containers = shim.containers.iter();
    let containers = containers.filter_map(|container| Some((container.id.clone(), container.told()?))).collect();
    Answer::Hello(Box::new(State { version: VERSION, sandbox, ready, containers }))
}
