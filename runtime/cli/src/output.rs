//! Data on standard output, talk on standard error, colour only on a terminal, one JSON object for machines.

use crate::args::{Color, Global};
use std::io::{IsTerminal, Write};
use std::path::Path;

/// Where a command says things.
#[derive(Debug, Clone)]
pub struct Output {
    color: bool,
    quiet: bool,
    verbose: u8,
    json: Option<std::path::PathBuf>,
}

/// A colour for a word; the word itself must carry the meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Tint {
    Bold,
    Green,
    Red,
    Yellow,
    Dim,
}

impl Output {
    /// For these flags.
    pub fn new(global: &Global) -> Output {
        let color = match global.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        };
        Output {
            color,
            quiet: global.quiet,
            verbose: global.verbose,
            json: global.json.clone(),
        }
    }

    /// True if the one JSON object goes to standard output, and so nothing else may.
    pub fn json_on_stdout(&self) -> bool {
        self.json.as_deref().is_some_and(|path| path == Path::new("-"))
    }

    /// A line of data.
    pub fn data(&self, line: impl AsRef<str>) {
        if !self.json_on_stdout() {
            // A closed pipe (`| head`) is the reader's choice, not an error.
            let _ = writeln!(std::io::stdout(), "{}", line.as_ref());
        }
    }

    /// A line of talk.
    pub fn talk(&self, line: impl AsRef<str>) {
        if !self.quiet {
            let _ = writeln!(std::io::stderr(), "{}", line.as_ref());
        }
    }

    /// A line of talk for `-v`.
    pub fn detail(&self, line: impl AsRef<str>) {
        if self.verbose > 0 {
            self.talk(line);
        }
    }

    /// Progress on one line of a terminal; nothing elsewhere.
    pub fn progress(&self, line: impl AsRef<str>) {
        if !self.quiet && std::io::stderr().is_terminal() {
            let _ = write!(std::io::stderr(), "\r\x1b[2K{}", line.as_ref());
            let _ = std::io::stderr().flush();
        }
    }

    /// Ends the progress line.
    pub fn progress_done(&self) {
        self.progress("");
    }

    /// The four lines that end a default run: what ran where, what fell back and why, time, and the next command worth trying.
    pub fn closing(&self, ran: &str, fallback: &str, time: &str, next: &str) {
        self.talk("");
        self.talk(format!("ran       {ran}"));
        self.talk(format!("fallback  {fallback}"));
        self.talk(format!("time      {time}"));
        self.talk(format!("next      {next}"));
    }

    /// The word in a colour, if colour is on.
    pub fn tint(&self, tint: Tint, word: impl AsRef<str>) -> String {
        let word = word.as_ref();
        if !self.color {
            return word.to_string();
        }
        let code = match tint {
            Tint::Bold => "1",
            Tint::Green => "32",
            Tint::Red => "31",
            Tint::Yellow => "33",
            Tint::Dim => "2",
        };
        format!("\x1b[{code}m{word}\x1b[0m")
    }

    /// Writes the JSON object where it is wanted.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn json(&self, object: &serde_json::Value) -> anyhow::Result<()> {
        match &self.json {
            None => Ok(()),
            Some(path) if path == Path::new("-") => {
                let _ = writeln!(std::io::stdout(), "{object}");
                Ok(())
            }
            Some(path) => write_atomically(path, format!("{object:#}\n").as_bytes()),
        }
    }
}

/// Writes a file beside its place and renames it there, so that a reader never sees half of it.
///
/// # Errors
/// The folder does not exist, or the disk refuses: wrong use, not a bad input.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let written = || -> std::io::Result<()> {
        let folder = path
            .parent()
            .filter(|p| !p.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(bytes)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let _ = file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644));
        }
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    written().map_err(|error| crate::usage(format!("cannot write `{}`: {error}", path.display())))
}

/// `1.2 kB`, `14.8 MB`
pub fn bytes(count: u64) -> String {
    match count {
        0..1_000 => format!("{count} B"),
        1_000..1_000_000 => format!("{:.1} kB", count as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", count as f64 / 1e6),
        _ => format!("{:.2} GB", count as f64 / 1e9),
    }
}

/// `0.52 ms`, `1.3 s`
pub fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{:.0} us", s * 1e6),
        s if s < 1.0 => format!("{:.2} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
}
