//! Reading the few lines of a `.service` file that the supervised backend can carry out.
//!
//! What it cannot carry out it refuses by name; it must never start something that differs from what systemd
//! would start. Source: systemd.service(5), "Command lines". Called by `supervised`.

use std::collections::BTreeMap;
use std::path::Path;

use rustix::process::Signal;

/// What a unit starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnitFile {
    /// Argument vector of `ExecStart=`.
    pub(crate) argv: Vec<String>,
    /// `-` before the program: any exit is a good one.
    pub(crate) any_exit_is_good: bool,
    /// `Type=oneshot`.
    pub(crate) oneshot: bool,
    /// `RemainAfterExit=yes`.
    pub(crate) remains: bool,
    /// `Environment=`.
    pub(crate) environment: BTreeMap<String, String>,
    /// `WorkingDirectory=`.
    pub(crate) directory: Option<String>,
    /// `User=`.
    pub(crate) user: Option<String>,
    /// The signal that `ExecReload=` sends the main process, where it does that and nothing else.
    pub(crate) reload: Option<Signal>,
}

/// Settings whose absence would change what runs, and which this backend does not know.
const REFUSED: [&str; 6] =
    ["ExecStartPre", "ExecStartPost", "EnvironmentFile", "RootDirectory", "RootImage", "DynamicUser"];

/// Reads a unit file; an error says what cannot be carried out.
pub(crate) fn parse(text: &str) -> Result<UnitFile, String> {
    let settings = service_settings(text)?;
    let last = |key: &str| settings.iter().rev().find(|(k, _)| k == key).map(|(_, value)| value.as_str());
    if let Some((key, _)) = settings.iter().find(|(key, _)| REFUSED.contains(&key.as_str())) {
        return Err(format!("{key}= is not carried out by supervised units"));
    }
    // An empty assignment resets the list, as systemd has it.
    let mut starts: Vec<&str> = Vec::new();
    for (_, value) in settings.iter().filter(|(key, _)| key == "ExecStart") {
        if value.is_empty() { starts.clear() } else { starts.push(value) }
    }
    let [start] = starts.as_slice() else {
        return Err(format!("it has {} lines ExecStart=; supervised units start exactly one", starts.len()));
    };
    let (any_exit_is_good, start) = match start.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, *start),
    };
    if start.starts_with(['@', ':', '+', '!', '|']) {
        return Err(
            "prefixes of ExecStart= other than '-' are not carried out by supervised units".to_owned()
        );
    }
    let oneshot = match last("Type").unwrap_or("simple") {
        "simple" | "exec" => false,
        "oneshot" => true,
        other => return Err(format!("Type={other} is not carried out by supervised units")),
    };
    let mut environment = BTreeMap::new();
    for (_, value) in settings.iter().filter(|(key, _)| key == "Environment") {
        for assignment in split(value)? {
            let (name, value) = assignment.split_once('=').ok_or("Environment= holds no assignment")?;
            environment.insert(name.to_owned(), value.to_owned());
        }
    }
    Ok(UnitFile {
        argv: split(start)?,
        any_exit_is_good,
        oneshot,
        remains: matches!(last("RemainAfterExit"), Some("yes" | "true" | "on" | "1")),
        environment,
        directory: last("WorkingDirectory").map(str::to_owned),
        user: last("User").map(str::to_owned),
        reload: last("ExecReload").and_then(reload_signal),
    })
}

/// `kill -HUP $MAINPID` and its like: the one form of a reload that is a signal, and the usual one.
fn reload_signal(line: &str) -> Option<Signal> {
    let mut words = line.trim_start_matches('-').split_whitespace();
    words.next().filter(|program| Path::new(program).file_name().is_some_and(|name| name == "kill"))?;
    let (mut name, mut of) = (words.next()?, words.next()?);
    if name == "-s" {
        (name, of) = (of, words.next()?);
    }
    if of != "$MAINPID" || words.next().is_some() {
        return None;
    }
    let name = name.trim_start_matches('-').trim_start_matches("--signal=");
    match name.trim_start_matches("SIG") {
        "HUP" | "1" => Some(Signal::HUP),
        "USR1" | "10" => Some(Signal::USR1),
        "USR2" | "12" => Some(Signal::USR2),
        _ => None,
    }
}

/// Keys and values of `[Service]`, in order; lines that end in a backslash go on.
fn service_settings(text: &str) -> Result<Vec<(String, String)>, String> {
    let joined = text.replace("\\\r\n", " ").replace("\\\n", " ");
    let mut section = "";
    let mut settings = Vec::new();
    for line in joined.lines().map(str::trim) {
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name;
        } else if section == "Service" {
            let (key, value) = line.split_once('=').ok_or_else(|| format!("\"{line}\" is no setting"))?;
            settings.push((key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    Ok(settings)
}

/// Splits a command line as systemd does where nothing is expanded: blanks separate, quotes of both kinds keep
/// together, a backslash takes the next character, `%%` and `$$` are the characters themselves.
fn split(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut rest = line.chars().peekable();
    while let Some(c) = rest.next() {
        match (c, quote) {
            ('\\', _) => match rest.next() {
                Some(next @ ('\\' | '"' | '\'' | ' ' | ';')) => word.get_or_insert_default().push(next),
                Some('n') => word.get_or_insert_default().push('\n'),
                Some('t') => word.get_or_insert_default().push('\t'),
                Some(other) => return Err(format!("the escape \\{other} is not known to supervised units")),
                None => return Err("it ends in a backslash".to_owned()),
            },
            ('%', _) if rest.next_if_eq(&'%').is_some() => word.get_or_insert_default().push('%'),
            ('%', _) => return Err("specifiers such as %i are not expanded by supervised units".to_owned()),
            ('$', _) if rest.next_if_eq(&'$').is_some() => word.get_or_insert_default().push('$'),
            ('$', _) => return Err("variables such as $X are not expanded by supervised units".to_owned()),
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed".to_owned());
    }
    words.extend(word);
    if words.is_empty() { Err("it is empty".to_owned()) } else { Ok(words) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simple_units_are_read() {
        let unit = parse(
            "[Unit]\nExecStart=/no\n[Service]\n# why\nType=exec\nUser=edgefw\nEnvironment=\"A=b c\" D=e\n\
             ExecStart=/usr/sbin/edgefwd \\\n  --name 'two words' \"100%%\"\n[Install]\nWantedBy=x\n",
        )
        .unwrap();
        assert_eq!(unit.argv, ["/usr/sbin/edgefwd", "--name", "two words", "100%"]);
        assert_eq!(unit.environment["A"], "b c");
        assert_eq!(unit.environment["D"], "e");
        assert_eq!(unit.user.as_deref(), Some("edgefw"));
        assert!(!unit.oneshot && !unit.any_exit_is_good);
        for (line, signal) in [
            ("/bin/kill -HUP $MAINPID", Some(Signal::HUP)),
            ("kill -s USR1 $MAINPID", Some(Signal::USR1)),
            ("/usr/sbin/edgefwd --reload", None),
            ("/bin/kill -HUP $MAINPID 1", None),
            ("/bin/kill -KILL $MAINPID", None),
        ] {
            let unit = parse(&format!("[Service]\nExecStart=/a\nExecReload={line}\n")).unwrap();
            assert_eq!(unit.reload, signal, "{line}");
        }
        let reset = parse("[Service]\nType=oneshot\nExecStart=/a\nExecStart=\nExecStart=-/b\n").unwrap();
        assert_eq!(reset.argv, ["/b"]);
        assert!(reset.any_exit_is_good && reset.oneshot);
    }

    #[test]
    fn what_cannot_be_carried_out_is_refused_by_name() {
        for (text, word) in [
            ("[Service]\n", "0 lines"),
            ("[Service]\nExecStart=/a\nExecStart=/b\n", "2 lines"),
            ("[Service]\nExecStart=/a %i\n", "%i"),
            ("[Service]\nExecStart=/a $HOME\n", "$X"),
            ("[Service]\nExecStart=+/a\n", "prefixes"),
            ("[Service]\nExecStart=/a 'b\n", "quote"),
            ("[Service]\nType=forking\nExecStart=/a\n", "forking"),
            ("[Service]\nExecStartPre=/p\nExecStart=/a\n", "ExecStartPre"),
            ("[Service]\nnonsense\n", "nonsense"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
