//! Reads .pt2 archives of torch.export.save into the IR.
