//! The executor's loop: one event at a time from the core, the runs and the clock; what was decided is done.
//!
//! Cores come and go: when one leaves, what was begun goes on and reports are kept, as when a link is lost;
//! the next one is told everything anew. Decides nothing itself. Called by `executor.rs` on its thread.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use fleet_proto::pb::executor_message::Body as ToCore;
use fleet_proto::pb::{self, Alive, CoreMessage, ExecutorMessage, Leaving, OutputChunk};
use fleet_types::digest::Digest;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::copies::{CopyHub, CopyPiece};
use crate::dispatcher::{Effect, Event};
use crate::executor::Open;
use crate::package_hub::{PackageHub, PackagesMessage};
use crate::run::{OutputHub, OutputPiece, Run, RunSurroundings};
use crate::socket::{ExecutorPort, Receiver, Sender, Socket, SocketError};

/// Messages on their way to the core: two pages of reports, each half a megabyte at most.
const CONTROL_QUEUE: usize = 64;
/// With the queue full, the core has so long to take one message before it is given up. A healthy one takes them
/// in milliseconds, on a machine that swaps in seconds; until then the loop waits, and with it every end of a job.
const TAKE_LIMIT: Duration = Duration::from_secs(10);
/// Chunks of output on their way: one being written and one behind it.
const OUTPUT_QUEUE: usize = 2;
/// How often waiting assignments and queued jobs are looked at: documents are waited for half a minute, and a
/// clock that is set, or a machine that slept, is noticed after so long.
const TICK: Duration = Duration::from_secs(5);
/// Beats without a word of the core after which it counts as hung: a minute, longer than a machine that swaps makes a
/// healthy one wait. Counted by the executor's own beats, so that a machine that slept blames nobody.
const SILENT_BEATS: u32 = 12;
/// At the end a core that does not read has this long to take the last messages.
const FLUSH_LIMIT: Duration = Duration::from_secs(30);

/// The core that is served.
struct Core {
    control: mpsc::Sender<ToCore>,
    receiver: Receiver<CoreMessage>,
    writer: JoinHandle<()>,
    /// Beats since its last word.
    silent: u32,
}

impl Core {
    fn new(
        socket: Socket,
        output: Arc<OutputHub>,
        copies: Arc<CopyHub>,
        packages: Arc<PackageHub>,
    ) -> io::Result<Self> {
        let (sender, receiver) = ExecutorPort::bind(socket)?.split();
        let (control, from_loop) = mpsc::channel(CONTROL_QUEUE);
        let writer = tokio::spawn(write(sender, from_loop, output, copies, packages));
        Ok(Self { control, receiver, writer, silent: 0 })
    }
}

struct Service {
    core: Option<Core>,
    /// Has the core been let go because it takes nothing any more?
    given_up: bool,
    runs: RunSurroundings,
    copies: Arc<CopyHub>,
    packages: Arc<PackageHub>,
}

/// What the loop hears from the agent's binary, and tells it.
pub struct Outside {
    /// Cores to serve.
    pub cores: mpsc::Receiver<Socket>,
    /// Told when it is time to stop.
    pub drained: oneshot::Receiver<()>,
    /// Cores that have hung, counted.
    pub hung: watch::Sender<u32>,
}

/// Serves until drained, or until the journal is closed.
pub async fn serve(opened: Open, first: Socket, outside: Outside) {
    let Open { mut dispatcher, runs, copies, packages, mut events, beat, .. } = opened;
    let Outside { mut cores, mut drained, hung } = outside;
    let mut beats = interval_at(Instant::now() + beat, beat);
    // Beats that were missed are not made up for: nobody could have answered them.
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut service = Service { core: None, given_up: false, runs, copies, packages };
    service.connect(first);
    let recovered = dispatcher.recover();
    let mut effects = vec![Effect::Send(dispatcher.ready())];
    effects.extend(recovered);
    let mut draining = false;
    while service.perform(effects).await && !dispatcher.is_silenced() {
        if std::mem::take(&mut service.given_up) {
            hung.send_modify(|count| *count = count.wrapping_add(1));
            effects = dispatcher.handle(Event::CoreLeft);
            continue;
        }
        let has_core = service.core.is_some();
        let next = async {
            tokio::select! {
                message = receive(&mut service.core) => from_core(message),
                Some(socket) = cores.recv(), if !has_core => Next::Core(socket),
                event = events.recv() => Next::Event(event.map_or(Event::Tick, Event::Run)),
                // Told, or nobody is left who could tell.
                _ = &mut drained, if !draining => Next::Event(Event::Drain),
                _ = beats.tick() => Next::Beat,
            }
        };
        let next = match dispatcher.look_again_in(TICK) {
            Some(limit) => tokio::time::timeout(limit, next).await.unwrap_or(Next::Event(Event::Tick)),
            None => next.await,
        };
        let event = match next {
            Next::Event(event) => {
                if let (Event::Core(_), Some(core)) = (&event, &mut service.core) {
                    core.silent = 0;
                }
                event
            }
            Next::Beat if service.beat() => Event::Tick,
            Next::Beat => {
                tracing::error!("the core says nothing any more: it is given up; open work goes on");
                hung.send_modify(|count| *count = count.wrapping_add(1));
                Event::CoreLeft
            }
            Next::Core(socket) => {
                service.connect(socket);
                Event::CoreCame
            }
            Next::CoreLeft => {
                service.core = None;
                Event::CoreLeft
            }
        };
        draining |= matches!(event, Event::Drain);
        effects = dispatcher.handle(event);
    }
    service.flush(!dispatcher.is_silenced()).await;
}

enum Next {
    Event(Event),
    Beat,
    Core(Socket),
    CoreLeft,
}

impl Service {
    fn connect(&mut self, socket: Socket) {
        let (output, copies) = (Arc::clone(&self.runs.output), Arc::clone(&self.copies));
        match Core::new(socket, output, copies, Arc::clone(&self.packages)) {
            Ok(core) => self.core = Some(core),
            // Its other end closes with this one: whoever started that core starts another.
            Err(error) => tracing::error!(%error, "the socket to the core cannot be used"),
        }
    }

    /// Says that the executor is alive; false when the core has said nothing for so long that it is given up.
    fn beat(&mut self) -> bool {
        let Some(core) = &mut self.core else { return true };
        core.silent += 1;
        if core.silent > SILENT_BEATS {
            // It may be in the middle of a message that nobody takes.
            core.writer.abort();
            self.core = None;
            return false;
        }
        // A queue that is full says as much: the core has not read what is in it.
        let _ = core.control.try_send(ToCore::Alive(Alive {}));
        true
    }

    /// Does what was decided; false when it is time to end.
    async fn perform(&mut self, effects: Vec<Effect>) -> bool {
        for effect in effects {
            match effect {
                Effect::Send(body) => {
                    if let Some(core) = &self.core
                        && !hand_over(&core.control, body).await
                    {
                        tracing::error!(
                            "the core takes no messages any more: it is given up, open work goes on"
                        );
                        // Its socket closes: whoever started it ends it and starts another.
                        core.writer.abort();
                        self.core = None;
                        self.given_up = true;
                    }
                }
                Effect::Start(work) => {
                    let name = format!("run {}", work.accepted.assignment.job.run);
                    let run = Run::new(*work, self.runs.clone());
                    if let Err(error) = thread::Builder::new().name(name).spawn(move || run.carry_out()) {
                        // Stays accepted in the journal; the next start takes it up.
                        tracing::error!(%error, "no thread for a run");
                    }
                }
                Effect::Stop => return false,
            }
        }
        true
    }

    /// What is queued still goes to the core, and that this is the end, if it is one in good order.
    async fn flush(self, in_order: bool) {
        let Some(Core { control, writer, .. }) = self.core else { return };
        let leaving = async {
            if in_order {
                let _ = control.send(ToCore::Leaving(Leaving {})).await;
            }
            drop(control);
            let _ = writer.await;
        };
        if tokio::time::timeout(FLUSH_LIMIT, leaving).await.is_err() {
            tracing::warn!("the core did not take the last messages");
        }
    }
}

/// Puts a message into the core's queue; false when the core has taken nothing for too long. One that has left
/// counts as having taken it: reports are kept and sent over the next link.
async fn hand_over(control: &mpsc::Sender<ToCore>, body: ToCore) -> bool {
    tokio::time::timeout(TAKE_LIMIT, control.send(body)).await.is_ok()
}

/// The core's next message; waits for ever where there is no core. Safe to drop at its await.
async fn receive(core: &mut Option<Core>) -> Result<Option<CoreMessage>, SocketError> {
    match core {
        Some(core) => core.receiver.receive().await,
        None => std::future::pending().await,
    }
}

fn from_core(message: Result<Option<CoreMessage>, SocketError>) -> Next {
    match message {
        Ok(Some(CoreMessage { body: Some(body) })) => Next::Event(Event::Core(body)),
        // Of a newer core; nothing here depends on it.
        Ok(Some(CoreMessage { body: None })) => Next::Event(Event::Tick),
        Ok(None) => Next::CoreLeft,
        Err(error) => {
            tracing::error!(%error, "the socket to the core failed");
            Next::CoreLeft
        }
    }
}

fn chunk(piece: OutputPiece) -> OutputChunk {
    let (run, attempt) = piece.key;
    OutputChunk {
        run: run.to_string(),
        attempt: attempt.0,
        step: piece.step,
        offset: piece.offset,
        data: piece.data,
        last: piece.last,
    }
}

fn copy_piece(piece: CopyPiece) -> pb::CopyPiece {
    pb::CopyPiece {
        made_ms: piece.made.as_millis(),
        archive: piece.archive.as_bytes().to_vec(),
        sha256: piece.sha256.as_bytes().to_vec(),
        offset: piece.offset,
        data_sha256: Digest::of(&piece.data).as_bytes().to_vec(),
        data: piece.data,
    }
}

fn packages_message(message: PackagesMessage) -> pb::Packages {
    let PackagesMessage { list_sha256, state, list } = message;
    pb::Packages { list_sha256: list_sha256.as_bytes().to_vec(), state, list }
}

/// Writes to the core: control first, output when there is none, packages and copies when there is neither.
async fn write(
    mut sender: Sender<ExecutorMessage>,
    mut control: mpsc::Receiver<ToCore>,
    output: Arc<OutputHub>,
    copies: Arc<CopyHub>,
    packages: Arc<PackageHub>,
) {
    let (chunks, mut from_pump) = mpsc::channel(OUTPUT_QUEUE);
    let pump = tokio::spawn(async move {
        loop {
            let chunk = output.next_chunk().await;
            if chunks.send(chunk).await.is_err() {
                return;
            }
        }
    });
    loop {
        let body = tokio::select! {
            biased;
            body = control.recv() => match body {
                Some(body) => body,
                None => break,
            },
            Some(piece) = from_pump.recv() => ToCore::Output(chunk(piece)),
            message = packages.next_message() => ToCore::Packages(packages_message(message)),
            piece = copies.next_piece() => ToCore::Copy(copy_piece(piece)),
        };
        if let Err(error) = sender.send(&ExecutorMessage { body: Some(body) }).await {
            tracing::warn!(%error, "the core cannot be told");
            break;
        }
    }
    pump.abort();
}

#[cfg(test)]
mod tests {
    use fleet_proto::pb::LinkRefused;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_core_that_takes_nothing_is_given_up_and_one_that_has_left_is_not() {
        let body = || ToCore::LinkRefused(LinkRefused::default());
        let (control, mut taken) = mpsc::channel(1);
        assert!(hand_over(&control, body()).await);
        let began = Instant::now();
        assert!(!hand_over(&control, body()).await, "nobody takes the first");
        assert_eq!(began.elapsed(), TAKE_LIMIT);
        taken.recv().await.unwrap();
        assert!(hand_over(&control, body()).await);
        drop(taken);
        assert!(hand_over(&control, body()).await);
    }
}
