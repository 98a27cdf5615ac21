//! The database as the writer sees it: opened when it is needed, and made anew when it
//! was deleted or damaged, which the new one then tells.

use std::path::Path;

use super::LOCK_SLICE;
use crate::store::{
    Settings,
    database::{self, Database, Durability, FileId, Trouble},
    retention::{self, Step},
    row::{Event, EventRecord, EventType, Record},
};

/// A file that is lost is made anew, but not for ever in one go.
const ATTEMPTS_MAX: usize = 3;

pub(super) struct Target {
    settings: Settings,
    database: Option<Database>,
    /// Rows of this process in the present file, by connections that were let go of.
    rows: usize,
    /// What became of the file of before, until its successor has it on record.
    loss: Option<Loss>,
}

/// What became of the database that was there before.
struct Loss {
    reason: &'static str,
    detail: String,
    set_aside: Option<String>,
    /// What this process had written into it. Other processes and earlier lives are not known.
    rows: usize,
}

impl Target {
    pub(super) fn new(settings: Settings) -> Self {
        Target { settings, database: None, rows: 0, loss: None }
    }

    pub(super) fn path(&self) -> &Path {
        &self.settings.path
    }

    /// Does `work` with the database; again from its beginning if it turns out that the
    /// file is no longer there, or no longer a database.
    pub(super) fn write(&mut self, mut work: impl FnMut(&mut Database) -> Result<(), Trouble>) -> Result<(), Trouble> {
        for _ in 0..ATTEMPTS_MAX {
            let file = FileId::of(&self.settings.path);
            match self.reach().and_then(&mut work) {
                Err(Trouble::Gone) => self.note_deleted(),
                Err(trouble @ Trouble::JournalGone) => {
                    tracing::warn!(path = %self.settings.path.display(), "{trouble}; nothing was lost");
                    self.hang_up();
                }
                Err(Trouble::Damaged(detail)) => self.set_aside(file, detail)?,
                other => return other,
            }
        }
        Err(Trouble::Gone)
    }

    /// One step of retention.
    pub(super) fn tidy(&mut self) -> Result<Step, Trouble> {
        // Of a gateway that has nothing to write for hours, too.
        if self.database.is_some() {
            self.write(Database::keep_journal)?;
        }
        match &mut self.database {
            Some(database) => {
                Ok(retention::step(database.connection(), &self.settings, self.settings.clock.unix_ms())?)
            }
            None => Ok(Step::Done),
        }
    }

    /// Lets go of a connection that is of no use; the next attempt makes another.
    pub(super) fn hang_up(&mut self) {
        self.rows += self.database.take().map_or(0, |database| database.committed_rows());
    }

    fn reach(&mut self) -> Result<&mut Database, Trouble> {
        let database = match self.database.take() {
            Some(database) => database,
            None => {
                let mut database = Database::open(&self.settings, LOCK_SLICE, Durability::Process)?;
                if let Some(loss) = &self.loss {
                    database.commit([&Record::Event(loss.event())])?;
                    self.loss = None;
                }
                database
            }
        };
        Ok(self.database.insert(database))
    }

    fn note_deleted(&mut self) {
        self.hang_up();
        if self.loss.is_none() {
            tracing::warn!(path = %self.settings.path.display(), "the database was deleted or replaced while open");
            let (detail, rows) = (Trouble::Gone.to_string(), std::mem::take(&mut self.rows));
            self.loss = Some(Loss { reason: "deleted", detail, set_aside: None, rows });
        }
    }

    fn set_aside(&mut self, file: Option<FileId>, detail: String) -> Result<(), Trouble> {
        // Closed first: SQLite cleans up by name, and the name is about to change hands.
        self.hang_up();
        let aside = database::set_aside(&self.settings.path, file)
            .map_err(|error| Trouble::Unusable(format!("it is damaged ({detail}) and cannot be set aside: {error}")))?;
        let rows = std::mem::take(&mut self.rows) + self.loss.as_ref().map_or(0, |untold| untold.rows);
        if let Some(aside) = aside.map(|path| path.display().to_string()) {
            tracing::error!(%detail, set_aside = aside, "the database is damaged, a fresh one takes its place");
            self.loss = Some(Loss { reason: "damaged", detail, set_aside: Some(aside), rows });
        }
        Ok(())
    }
}

impl Loss {
    fn event(&self) -> EventRecord {
        EventRecord::now(Event {
            category: "store",
            event_type: EventType::DatabaseRecreated,
            service_name: "gateway".to_owned(),
            metadata: serde_json::json!({
                "reason": self.reason,
                "detail": self.detail,
                "set_aside": self.set_aside,
                "rows_written": self.rows,
            }),
        })
    }
}
