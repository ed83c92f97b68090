mod canaries;
mod data;
mod model;
#[derive(clap::Args, Debug)]
pub struct DrillArgs {}
pub async fn run(_args: DrillArgs, _format: crate::cli::output::Format) -> crate::cli::exit::Outcome {
    Ok(())
}
