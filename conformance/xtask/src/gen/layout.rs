//! Sizes and offsets under a data model.

use super::model::{Description, Member, Type};
use anyhow::{Result, ensure};

/// A data model. LP64 and LLP64 differ only in `long`, which the ABI does not use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataModel {
    pub name: &'static str,
    pub pointer: u64,
    /// Alignment of 64-bit numbers within a struct.
    pub wide: u64,
}

/// The data models whose layouts are kept as golden files.
pub const MODELS: [DataModel; 3] = [
    DataModel {
        name: "LP64",
        pointer: 8,
        wide: 8,
    },
    DataModel {
        name: "LLP64",
        pointer: 8,
        wide: 8,
    },
    DataModel {
        name: "ILP32",
        pointer: 4,
        wide: 8,
    },
];

/// 32-bit x86 on System V: ILP32, but 64-bit numbers are aligned to 4.
pub const I386: DataModel = DataModel {
    name: "ILP32 of i386",
    pointer: 4,
    wide: 4,
};

/// Where the members of a struct lie.
#[derive(Debug)]
pub struct Layout {
    pub size: u64,
    pub align: u64,
    /// One a member: (offset, size).
    pub members: Vec<(u64, u64)>,
}

/// Lays out a struct.
pub fn layout(description: &Description, name: &str, members: &[Member], model: DataModel) -> Result<Layout> {
    let (mut end, mut align) = (0u64, 1u64);
    let mut placed = Vec::new();
    let (mut version, mut before) = (0, 0);
    for member in members {
        let (size, member_align) = size_align(description, &member.ty, model)?;
        let offset = end.next_multiple_of(member_align);
        if member.since > version {
            (version, before) = (member.since, end.next_multiple_of(align));
        }
        // What was padding at the end to an older maker holds anything at all: its `struct_size` covers it.
        ensure!(
            offset >= before || member.name.starts_with("reserved"),
            "`{name}`: `{}` lies in what was padding before version number {version} under {}; put a reserved field first",
            member.name,
            model.name
        );
        // Padding is written out as a reserved field, so that every byte has a name where pointers are 8 bytes.
        ensure!(
            offset == end || model.pointer == 4,
            "`{name}`: there is padding before `{}`",
            member.name
        );
        placed.push((offset, size));
        end = offset + size;
        align = align.max(member_align);
    }
    ensure!(
        end.is_multiple_of(align) || model.pointer == 4,
        "`{name}`: there is padding at the end"
    );
    Ok(Layout {
        size: end.next_multiple_of(align),
        align,
        members: placed,
    })
}

fn size_align(description: &Description, ty: &Type, model: DataModel) -> Result<(u64, u64)> {
    Ok(match ty {
        Type::Int(bits, _) => (u64::from(bits / 8), u64::from(bits / 8).min(model.wide)),
        Type::F64 => (8, model.wide),
        Type::Pointer { .. } | Type::Function(_) | Type::Callback(_) => (model.pointer, model.pointer),
        Type::Array(item, count) => {
            let (size, align) = size_align(description, item, model)?;
            (size * u64::from(*count), align)
        }
        Type::Enum(name) => size_align(description, &description.enum_type(name)?, model)?,
        Type::Void | Type::Struct(_) => anyhow::bail!("a struct crosses by pointer only"),
    })
}
