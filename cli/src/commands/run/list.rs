//! `fleetctl run list`.

use fleet_types::view::{Page, RunItem};

use crate::commands::{job_cells, paging, watching};
use crate::error::{ExitCode, Failure};
use crate::render::{Answer, Column, Table, Times};
use crate::session::Session;

/// Lists runs, newest first.
pub async fn run(session: &mut Session<'_>, limit: u32) -> Result<ExitCode, Failure> {
    let client = session.connect().await?;
    watching::print(session, async |session| {
        let page = paging::all("fleet/v1/run-list", limit as usize, async |after| client.runs(after).await);
        Ok(answer(&page.await?, &session.times()))
    })
    .await
}

fn answer(page: &Page<RunItem>, times: &Times) -> Answer {
    let mut table = Table::new(&[
        Column::whole("RUN"),
        Column::whole("VERB"),
        Column::text("PROCEDURE"),
        Column::whole("STATE"),
        Column::whole("NODES"),
        Column::whole("STARTED"),
        Column::whole("BY"),
        Column::text("REASON"),
    ]);
    for run in &page.items {
        table.row([
            run.run.to_string().into(),
            job_cells::verb(run.verb).into(),
            run.procedure.as_str().into(),
            job_cells::run_state(run.state),
            job_cells::tally(&run.tally).into(),
            times.show(run.started).into(),
            run.started_by.as_str().into(),
            run.reason.as_str().into(),
        ]);
    }
    let empty = "no runs yet; start one: fleetctl run start PROCEDURE -l SELECTOR";
    Answer::of(page).names(page.items.iter().map(|run| run.run.to_string())).table(table, empty)
}
