//! Network namespaces for tests: each test makes its own, and all that is in it goes when its thread ends.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;

/// Runs a test in a network namespace of its own, with loopback up. Needs root.
pub fn in_namespace<T: Send + 'static>(test: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = thread::spawn(move || {
        enter();
        test()
    });
    match thread.join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// The same, with a tokio runtime on the namespace's thread.
pub fn in_namespace_async<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    in_namespace(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test());
    });
}

fn enter() {
    unshare(CloneFlags::CLONE_NEWNET).expect("tests of the network need root: run them as root");
    ip("link set lo up");
}

/// Runs `ip` in the calling thread's namespace.
pub fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Runs many `ip` commands in the calling thread's namespace, one a line.
pub fn ip_batch(commands: &str) {
    let mut child = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

/// Writes a sysctl of the calling thread's namespace.
pub fn sysctl(path: &str, value: &str) {
    fs::write(format!("/proc/sys/net/{path}"), value).unwrap();
}

type Task = Box<dyn FnOnce() + Send>;

/// Another namespace: a neighbor on the other end of a veth.
pub struct Peer {
    tasks: Option<mpsc::Sender<Task>>,
    thread: Option<JoinHandle<()>>,
    tid: i32,
}

impl Peer {
    /// Makes it, with loopback up.
    #[expect(clippy::new_without_default, reason = "to make one is an effect")]
    pub fn new() -> Self {
        let (tasks, received) = mpsc::channel::<Task>();
        let (said, tid) = mpsc::channel();
        let thread = thread::spawn(move || {
            enter();
            said.send(gettid().as_raw()).unwrap();
            received.into_iter().for_each(|task| task());
        });
        Self { tasks: Some(tasks), thread: Some(thread), tid: tid.recv().unwrap() }
    }

    /// Makes a veth pair: `here` in the calling thread's namespace, `there` in the peer's, both up.
    pub fn connect(&self, here: &str, there: &str) {
        ip(&format!("link add {here} type veth peer name {there} netns {}", self.tid));
        ip(&format!("link set {here} up"));
        self.ip(&format!("link set {there} up"));
    }

    /// Runs `ip` in the peer's namespace.
    pub fn ip(&self, arguments: &str) {
        let arguments = arguments.to_owned();
        self.run(move || ip(&arguments));
    }

    /// Writes a sysctl of the peer's namespace.
    pub fn sysctl(&self, path: &'static str, value: &'static str) {
        self.run(move || sysctl(path, value));
    }

    /// Runs something in the peer's namespace and waits for it.
    pub fn run<T: Send + 'static>(&self, task: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, finished) = mpsc::channel();
        let task: Task = Box::new(move || {
            let value = task();
            // The waiting process is there.
            let _ = done.send(value);
        });
        self.tasks.as_ref().unwrap().send(task).unwrap();
        finished.recv().expect("the peer's task failed")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.tasks = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
