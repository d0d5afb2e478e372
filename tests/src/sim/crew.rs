//! The child processes of one measurement: lines in, lines out. Ended by their own pid when dropped.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::plan::Said;

/// Longest wait for a child's line; it bounds the whole measurement.
const LINE_LIMIT: Duration = Duration::from_secs(150);

/// One child: a worker or the floor, the same program started again.
pub struct Member {
    child: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
}

impl Member {
    /// Starts `fleet-sim ROLE PLAN-FILE`.
    pub fn start<P: Serialize>(role: &str, plan: &P, file: &Path) -> Result<Self> {
        std::fs::write(file, serde_json::to_vec(plan)?)?;
        let mut child = Command::new(std::env::current_exe()?)
            .arg(role)
            .arg(file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("fleet-sim {role} did not start"))?;
        let input = child.stdin.take();
        let output = child.stdout.take().context("a child without output")?;
        Ok(Self { child, input, output: BufReader::new(output).lines() })
    }

    /// Its process id.
    pub fn pid(&self) -> Result<u32> {
        self.child.id().context("the child has ended")
    }

    /// Tells it a line.
    pub async fn tell(&mut self, line: &str) -> Result<()> {
        let input = self.input.as_mut().context("its input is closed")?;
        input.write_all(format!("{line}\n").as_bytes()).await?;
        Ok(input.flush().await?)
    }

    /// Its next line.
    pub async fn said(&mut self) -> Result<Said> {
        let line = timeout(LINE_LIMIT, self.output.next_line()).await.context("a child says nothing")??;
        match line {
            Some(line) => serde_json::from_str(&line).with_context(|| format!("\"{line}\"")),
            None => bail!("a child of the simulator ended by itself"),
        }
    }

    /// Lets it end.
    pub async fn end(mut self) -> Result<()> {
        drop(self.input.take());
        timeout(LINE_LIMIT, self.child.wait()).await.context("a child does not end")??;
        Ok(())
    }
}
