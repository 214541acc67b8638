//! Views of a conformance run. The truth is `cases.jsonl`, one [`CaseRecord`](delegraph_runner::CaseRecord) a line, and `run.json`, what
//! the run was made of; every other file is made from these two and can be made again.
