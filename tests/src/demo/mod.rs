//! stub
/// a
#[derive(clap::Args, Debug)]
pub struct DemoArgs {}
/// a
///
/// # Errors
/// a
pub fn run(_: &DemoArgs) -> anyhow::Result<()> {
    Ok(())
}
