//! The null delegate as a library that tells its layouts, for the comparison.

delegraph_sdk::export_delegate!(delegraph_null::Null);
delegraph_sdk::export_layouts!();
