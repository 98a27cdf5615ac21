//! The launcher where there are no namespaces and no reapers: a process group that
//! ends with the program, with the gateway, or when it is told to.

use std::{
    io::Read as _,
    os::unix::{
        net::UnixStream,
        process::{CommandExt as _, ExitStatusExt as _},
    },
    process::{Command, ExitStatus},
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::super::talk::{Answer, LaunchError, Order, STOP_POLITELY};
use crate::sandbox::portable;

/// Returns only where nothing was started.
pub(super) fn run(order: Order, control: &UnixStream) -> LaunchError {
    let _ = rustix::process::setsid();
    let confined = match portable::confine(&order.plan, &order.program) {
        Ok(confined) => confined,
        Err(refusal) => return refusal.into(),
    };
    let report = confined.report;
    let private = order.plan.private;
    let cwd = confined.variables.first().filter(|_| !order.plan.keeps_cwd).map_or(order.cwd, |(_, home)| home.clone());
    let mut command = Command::new(&confined.program);
    command.args(&confined.before).args(&order.args).env_clear().envs(confined.variables).envs(order.env);
    command.current_dir(cwd).process_group(0);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return LaunchError::NotFound(error.to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return LaunchError::NotPermitted(error.to_string());
        }
        Err(error) => return LaunchError::other("the program cannot be started", error),
    };
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let signal = move |signal| group.map(|group| kill_process_group(group, signal));
    let answered = super::send_line(control, &Answer::Started { pid: child.id(), report }, &[]);
    match (answered, control.try_clone()) {
        (Ok(()), Ok(mut control)) => {
            std::thread::spawn(move || {
                let mut byte = [0];
                while control.read(&mut byte).is_ok_and(|read| read == 1) {
                    if byte[0] == STOP_POLITELY {
                        signal(Signal::TERM);
                    }
                }
                signal(Signal::KILL);
            });
        }
        _ => {
            signal(Signal::KILL);
        }
    }
    let status = child.wait();
    signal(Signal::KILL);
    if !private.as_os_str().is_empty() {
        let _ = std::fs::remove_dir_all(private);
    }
    end_like(status.unwrap_or_default())
}

fn end_like(status: ExitStatus) -> ! {
    if let Some(signal) = status.signal().and_then(Signal::from_named_raw) {
        let _ = kill_process(rustix::process::getpid(), signal);
        let _ = kill_process(rustix::process::getpid(), signal);
    }
    std::process::exit(status.code().unwrap_or(1));
}
