//! Man pages of `maglev` and `maglevd`, made from their arguments: one for each command. Packages have them; the hidden command `man` writes them.

use std::io;
use std::path::Path;

use clap_mangen::Man;

/// Writes `maglev-vip-add.1` and the like into a folder, those of hidden commands apart.
///
/// # Errors
/// A page cannot be written.
pub fn write(command: clap::Command, section: &str, folder: &Path) -> io::Result<()> {
    let mut command = command.disable_help_subcommand(true);
    // Gives each subcommand its full name.
    command.build();
    write_all(&command, section, folder)
}

fn write_all(command: &clap::Command, section: &str, folder: &Path) -> io::Result<()> {
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
        write_all(subcommand, section, folder)?;
    }
    let page = Man::new(command.clone()).section(section).manual("Maglev");
    let mut text = Vec::new();
    page.render(&mut text)?;
    std::fs::write(folder.join(page.get_filename()), text)
}
