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

#[cfg(test)]
mod tests {
    use crate::state_dir::ID_LIMIT;
    use crate::verbs::{create::CONTAINERS_LIMIT, start_sandbox::SANDBOX_LIMIT};
    use shim_protocol::{
        Answer, ContainerState, Exit, MAX_MESSAGE, Message, Process, Reply, SandboxProcess, State, encode,
    };

    #[test]
    fn the_fullest_state_fits_into_one_message() {
        let process = Process { pid: i32::MAX, start_time: u64::MAX };
        let exit = Exit {
            process,
            code: i32::MIN,
            signal: Some(i32::MIN),
            oom_killed: false,
            started_at: i64::MIN,
            finished_at: i64::MIN,
        };
        let id = |number: usize| format!("{number:x>ID_LIMIT$}");
        let containers =
            (0..CONTAINERS_LIMIT).map(|number| (id(number), ContainerState::Exited(exit.clone()))).collect();
        let shim = SandboxProcess { shim: process, reaper: Some(process) };
        let state = State { version: u32::MAX, sandbox: None, ready: false, containers };
        let reply = Reply { id: u64::MAX, result: Ok(Answer::Hello(Box::new(state))) };
        let message = encode(&Message::Reply(reply)).unwrap();
        let processes = serde_json::to_vec(&shim).unwrap();
        let room = MAX_MESSAGE - message.len() - processes.len() - 16;
        assert!(room >= SANDBOX_LIMIT, "{room} bytes are left for the sandbox");
    }
}
