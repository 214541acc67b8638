//! Which cases `conform run` runs.

use crate::args::{KitArgs, ModeArg};
use delegraph_config::glob_match;
use delegraph_kit::lists;
use delegraph_kit::registry::{self, CaseInfo};
use delegraph_kit::support::cases;
use delegraph_runner::Category;
use delegraph_runner::run_info::ListId;
use std::collections::BTreeSet;
use std::sync::OnceLock;

/// The cases of a run.
pub struct Choice {
    /// In the order of reports: all shards together.
    pub cases: Vec<&'static CaseInfo>,
    /// The lists that they are, whole.
    pub lists: Vec<ListId>,
    /// Only print them.
    pub print: bool,
}

/// The cases that the flags ask for.
///
/// # Errors
/// Wrong use: a list that there is not.
pub fn choose(args: &KitArgs) -> anyhow::Result<Choice> {
    let mut lists = Vec::new();
    if args.mode == ModeArg::Support && args.list.iter().any(|name| !name.is_empty()) {
        return Err(crate::usage("`--mode support` asks about operators and runs no list"));
    }
    let mut names: Vec<String> = args.list.iter().filter(|name| !name.is_empty()).cloned().collect();
    names.sort();
    names.dedup();
    for name in &names {
        let list = lists::find(name).map_err(crate::usage)?;
        if !lists.contains(&list) {
            lists.push(list);
        }
    }
    let listed: BTreeSet<&str> = lists.iter().flat_map(|list| &list.cases).map(String::as_str).collect();
    let in_lists = |case: &&CaseInfo| lists.is_empty() || listed.contains(case.id.as_str());
    let known = match args.mode {
        ModeArg::Support => questions(),
        _ => registry::cases(),
    };
    let all: Vec<&CaseInfo> = known.iter().filter(in_lists).collect();
    let cases: Vec<&CaseInfo> = all.iter().copied().filter(|case| is_asked(args, case)).collect();
    let whole = cases.len() == all.len() && all.len() == listed.len();
    Ok(Choice {
        lists: match whole {
            true => lists.iter().map(lists::List::id).collect(),
            false => Vec::new(),
        },
        print: args.list.iter().any(String::is_empty),
        cases,
    })
}

/// The cases of `--mode support`.
fn questions() -> &'static [CaseInfo] {
    static CELL: OnceLock<Vec<CaseInfo>> = OnceLock::new();
    CELL.get_or_init(cases::infos)
}

fn is_asked(args: &KitArgs, case: &CaseInfo) -> bool {
    let any = |globs: &[String], text: &str| globs.is_empty() || globs.iter().any(|glob| glob_match(glob, text));
    let mode = match args.mode {
        ModeArg::Test | ModeArg::Support => true,
        ModeArg::Perf => case.category == Category::Performance,
    };
    let short = |name: &String| match delegraph_types::DType::from_name(name) {
        Some(dtype) => dtype.name().to_string(),
        None => name.clone(),
    };
    let dtype = args.dtype.is_empty() || args.dtype.iter().any(|name| short(name) == case.dtype);
    mode && dtype && any(&args.case, &case.id) && any(&args.op, &case.op)
}

impl ModeArg {
    /// The word in records.
    pub fn name(self) -> &'static str {
        match self {
            ModeArg::Test => "test",
            ModeArg::Perf => "perf",
            ModeArg::Support => "support",
        }
    }
}
