//! The eBPF object holds no panic path. Knows ELF, and not the programs.
//!
//! An index or a slice that the compiler cannot prove leaves a call to `core::panicking` behind; the verifier would
//! walk it on every load, and a packet that reached it would loop. The linker drops functions without callers, so a panic
//! function in the object is called.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use object::{
    Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SectionKind, SymbolKind, read::File,
};

/// Size of an eBPF instruction, in bytes; its immediate is the last four.
const INSTRUCTION: u64 = 8;

/// Fails if the object has a panic function, naming it and its callers.
///
/// # Errors
/// It has one; or the file is no ELF object.
pub(crate) fn check(path: &Path) -> Result<()> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let object = File::parse(&*bytes).with_context(|| format!("{} is no ELF object", path.display()))?;
    let panics = panics(&object);
    if !panics.is_empty() {
        bail!("{} can panic: {}", path.display(), panics.join("; "));
    }
    let code: u64 =
        object.sections().filter(|section| section.kind() == SectionKind::Text).map(|code| code.size()).sum();
    let name = path.file_name().unwrap_or(path.as_os_str()).display();
    println!("lint: {name}: {} instructions, no panic path", code / INSTRUCTION);
    Ok(())
}

/// A line for each panic function of the object.
fn panics(object: &File<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    for symbol in object.symbols() {
        let Ok(name) = symbol.name() else { continue };
        if !is_panic(name) {
            continue;
        }
        let callers =
            symbol.section_index().map_or_else(Vec::new, |section| callers(object, section, symbol.address()));
        if callers.is_empty() {
            lines.push(format!("`{name}`"));
        } else {
            lines.push(format!("`{name}`, called by `{}`", callers.join("`, `")));
        }
    }
    lines
}

/// Every panic ends in a function of `core::panicking`, or in the panic handler itself.
fn is_panic(symbol: &str) -> bool {
    ["panicking", "rust_begin_unwind", "unwrap_failed", "expect_failed"].iter().any(|part| symbol.contains(part))
}

/// The functions of other sections that call the one at `address` of `section`.
///
/// Such a call's relocation names the section, and its immediate counts instructions from the section's start, less one.
fn callers(object: &File<'_>, section: object::SectionIndex, address: u64) -> Vec<String> {
    let mut found = Vec::new();
    for caller in object.sections() {
        let Ok(code) = caller.data() else { continue };
        for (offset, relocation) in caller.relocations() {
            let RelocationTarget::Symbol(target) = relocation.target() else {
                continue;
            };
            let Ok(target) = object.symbol_by_index(target) else {
                continue;
            };
            let called = target.address() + immediate(code, offset).map_or(0, |count| (count + 1) * INSTRUCTION);
            if target.section_index() == Some(section) && called == address {
                found.extend(function_at(object, caller.index(), offset));
            }
        }
    }
    found.dedup();
    found
}

fn immediate(code: &[u8], offset: u64) -> Option<u64> {
    let at = usize::try_from(offset).ok()?.checked_add(4)?;
    let bytes = code.get(at..at.checked_add(4)?)?;
    u64::try_from(i32::from_le_bytes(bytes.try_into().ok()?)).ok()
}

fn function_at(object: &File<'_>, section: object::SectionIndex, offset: u64) -> Option<String> {
    let holds = |symbol: &object::Symbol<'_, '_>| {
        symbol.kind() == SymbolKind::Text
            && symbol.section_index() == Some(section)
            && (symbol.address()..symbol.address() + symbol.size()).contains(&offset)
    };
    let symbol = object.symbols().find(holds)?;
    symbol.name().ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use object::{
        Architecture, BinaryFormat, Endianness, SymbolFlags, SymbolScope,
        write::{self, SymbolSection},
    };

    use super::*;

    /// An object with one function of this name.
    fn object_with(function: &str) -> Vec<u8> {
        let mut object = write::Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
        let section = object.section_id(write::StandardSection::Text);
        let value = object.append_section_data(section, &[0; 8], INSTRUCTION);
        object.add_symbol(write::Symbol {
            name: function.as_bytes().to_vec(),
            value,
            size: INSTRUCTION,
            kind: SymbolKind::Text,
            scope: SymbolScope::Linkage,
            weak: false,
            section: SymbolSection::Section(section),
            flags: SymbolFlags::None,
        });
        object.write().unwrap()
    }

    #[test]
    fn a_panic_function_is_named_and_others_are_not() {
        let found = |function| panics(&File::parse(&*object_with(function)).unwrap());
        assert_eq!(found("maglev"), Vec::<String>::new());
        let panic = "_RNvNtCs1xDXkJz5z0s_4core9panicking18panic_bounds_check";
        assert_eq!(found(panic), [format!("`{panic}`")]);
    }
}
