//! Receipts, tables and volumes to one self-contained page.
