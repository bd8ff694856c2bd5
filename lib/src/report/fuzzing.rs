//! Entry point for fuzzers: reads a receipt as a report does.

use std::path::Path;

use super::receipts::Receipt;

/// Reads the receipt at `path` and everything that a report shows of it.
///
/// # Errors
/// The message of [`super::Error`].
pub fn receipt(path: &Path) -> Result<(), String> {
    let receipt = Receipt::read(path).map_err(|error| error.to_string())?;
    let _ = (receipt.program(), receipt.wall(), receipt.cpu(), receipt.peak_memory());
    let _ = (receipt.warnings(), receipt.view());
    Ok(())
}
