//! The log: lines to standard error by a thread of its own, so that who does not read them holds up nothing else. What finds no
//! room is dropped and counted. Fields of the human format are escaped here, whoever logs them. Knows nothing of what is logged.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    fmt::{self, Write as _},
    io::{self, IsTerminal as _, Write},
    panic,
    sync::{Arc, Mutex, OnceLock, PoisonError, mpsc},
    thread,
    time::Duration,
};

use tracing::{
    error,
    field::{Field, Visit},
    warn,
};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    EnvFilter,
    field::RecordFields,
    filter::ParseError,
    fmt::{FormatFields, format::Writer},
};

use crate::{config::LogFormat, visible};

/// Lines that wait to be written at most: more than a start has with `debug`. The longest, with a path of 4 KiB that is all escapes,
/// has some 25 KiB.
const WAITING: usize = 2048;
/// For what waits when the process is to end.
const MOMENT: Duration = Duration::from_secs(1);

/// The log, once it is started.
static LOG: Mutex<Option<Log>> = Mutex::new(None);

struct Log {
    lines: NonBlocking,
    guard: WorkerGuard,
}

fn log() -> std::sync::MutexGuard<'static, Option<Log>> {
    LOG.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the log; the level may be a filter.
pub(crate) fn start(level: &str, format: LogFormat) -> Result<(), ParseError> {
    let filter = EnvFilter::try_new(level)?;
    let counter = Arc::new(OnceLock::new());
    let out = Out { to: io::stderr(), counter: Arc::clone(&counter), told: 0 };
    let (lines, guard) =
        NonBlockingBuilder::default().lossy(true).buffered_lines_limit(WAITING).thread_name("log").finish(out);
    let _ = counter.set(lines.error_counter());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(lines.clone());
    match format {
        LogFormat::Human => {
            let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|it| it.is_empty());
            builder.with_ansi(colours).with_target(false).fmt_fields(Fields).init();
        }
        LogFormat::Json => builder.json().init(),
    }
    *log() = Some(Log { lines, guard });
    // Who panics would wait for a reader, too.
    panic::set_hook(Box::new(|panic| {
        let backtrace = Some(Backtrace::capture()).filter(|it| it.status() == BacktraceStatus::Captured);
        error!(%panic, backtrace = backtrace.map(tracing::field::display), "a thread panicked");
    }));
    Ok(())
}

/// Lines that were dropped so far.
pub(crate) fn dropped() -> u64 {
    log().as_ref().map_or(0, |it| it.lines.error_counter().dropped_lines() as u64)
}

/// A message for who started the process, by way of the log where that is started.
pub(crate) fn say(message: &str) {
    let message = visible::lines(message);
    match log().as_mut() {
        Some(log) => _ = log.lines.write_all(format!("gopulse: {message}\n").as_bytes()),
        None => eprintln!("gopulse: {message}"),
    }
}

/// The end of the process, also by a panic: waits until what was logged is written, but for no longer than a moment.
pub(crate) struct End;

impl Drop for End {
    fn drop(&mut self) {
        let Some(Log { lines, guard }) = log().take() else { return };
        drop(lines);
        let (done, wait) = mpsc::channel();
        // The guard waits for its thread, and where that hangs prints to standard output, which may hang as well.
        thread::spawn(move || {
            drop(guard);
            let _ = done.send(());
        });
        let _ = wait.recv_timeout(MOMENT);
    }
}

/// Where lines go in the end; tells of those that were dropped once there is room again.
struct Out<W> {
    to: W,
    counter: Arc<OnceLock<ErrorCounter>>,
    told: usize,
}

impl<W: Write> Write for Out<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to.write(bytes)
    }

    /// Called when nothing waits any more.
    fn flush(&mut self) -> io::Result<()> {
        let dropped = self.counter.get().map_or(0, ErrorCounter::dropped_lines);
        let lines = dropped - self.told;
        self.told = dropped;
        if lines > 0 {
            warn!(lines, "lines of the log were dropped: nobody took them from standard error in time");
        }
        self.to.flush()
    }
}

/// Fields for people: the message as it is, others by name, all of them escaped.
struct Fields;

impl<'w> FormatFields<'w> for Fields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut visitor = Visitor { writer, first: true, result: Ok(()) };
        fields.record(&mut visitor);
        visitor.result
    }
}

struct Visitor<'w> {
    writer: Writer<'w>,
    first: bool,
    result: fmt::Result,
}

impl Visitor<'_> {
    fn write(&mut self, name: &str, value: fmt::Arguments<'_>) -> fmt::Result {
        if !std::mem::take(&mut self.first) {
            self.writer.write_char(' ')?;
        }
        if name != "message" {
            write!(self.writer, "{name}=")?;
        }
        visible::Escaped(&mut self.writer).write_fmt(value)
    }
}

impl Visit for Visitor<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // What comes from the crate `log` has its origin in such fields.
        if self.result.is_ok() && !field.name().starts_with("log.") {
            self.result = self.write(field.name().trim_start_matches("r#"), format_args!("{value:?}"));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.record_debug(field, &format_args!("{value}"));
        } else {
            self.record_debug(field, &value);
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing::{info, info_span};

    use super::*;

    /// What is written.
    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(log: impl FnOnce()) -> String {
        let page = Page::default();
        let to = page.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_target(false)
            .fmt_fields(Fields)
            .with_writer(move || to.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, log);
        let bytes = page.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_line_is_as_it_always_was() {
        let line = logged(|| info!(pid = 7, executable = %"/bin/x y", text = "a\"b", "measured"));
        assert!(line.ends_with("  INFO measured pid=7 executable=/bin/x y text=\"a\\\"b\"\n"), "{line}");
    }

    #[test]
    fn nothing_that_is_logged_forges_a_line_or_moves_a_cursor() {
        const EVIL: &str = "x\n2026-11-27T09:00:00Z  INFO forged\r\x1b[2J\u{9b}\u{2028}";
        let text = logged(|| {
            let error = io::Error::other(EVIL);
            info!(executable = %EVIL, debug = ?EVIL, string = EVIL, error = &error as &dyn std::error::Error, "{EVIL}");
            info_span!("span", of = %EVIL).in_scope(|| info!(%error, "within"));
        });
        assert_eq!(text.lines().count(), 2, "{text}");
        let acting = |c: &char| *c != '\n' && c.is_control() || *c == '\u{2028}';
        assert_eq!(text.chars().filter(acting).count(), 0, "{text}");
        assert!(text.contains(r"executable=x\n2026-11-27T09:00:00Z  INFO forged\r\u{1b}[2J\u{9b}\u{2028}"), "{text}");
    }

    /// A writer that waits until it may write.
    struct Gate(Page, mpsc::Receiver<()>);

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.1.recv();
            self.0.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_nobody_takes_is_dropped_counted_and_not_waited_for() {
        let (page, (go, wait)) = (Page::default(), mpsc::channel());
        let (mut lines, guard) = NonBlockingBuilder::default().buffered_lines_limit(4).finish(Gate(page.clone(), wait));
        for i in 0..20 {
            lines.write_all(format!("{i}\n").as_bytes()).unwrap();
        }
        let dropped = lines.error_counter().dropped_lines();
        // One may be with the writer already.
        assert!((15..=16).contains(&dropped), "{dropped}");
        drop(go);
        drop(guard);
        let written = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
        assert_eq!(written.lines().count(), 20 - dropped);
    }

    #[test]
    fn what_was_dropped_is_told_of_once() {
        let (mut lines, _guard) =
            NonBlockingBuilder::default().buffered_lines_limit(1).finish(Gate(Page::default(), mpsc::channel().1));
        let counter = Arc::new(OnceLock::new());
        counter.set(lines.error_counter()).expect("it is new");
        let mut out = Out { to: Page::default(), counter, told: 0 };
        while lines.error_counter().dropped_lines() == 0 {
            lines.write_all(b"a line\n").unwrap();
        }
        let before = lines.error_counter().dropped_lines();
        let text = logged(|| (0..3).for_each(|_| out.flush().unwrap()));
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(
            text.contains("WARN lines of the log were dropped") && text.contains(&format!("lines={before}")),
            "{text}"
        );
    }
}
