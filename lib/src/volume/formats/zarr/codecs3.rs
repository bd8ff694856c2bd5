//! The codecs of Zarr v3, parsed from the metadata.

use serde_json::Value;

use super::chain::{Body, Chain};
use super::header::{may_be_ignored, sizes, unknown};
use super::shard::Shard;
use crate::volume::codecs::{self, Size, Step};
use crate::volume::{ByteOrder, Dtype, shorten};

/// The maximum nesting of shards.
const LAYERS: usize = 8;

/// The codec chain for chunks of this shape and type. Unknown codecs that the metadata allow
/// readers to ignore are added to `notes`.
///
/// # Errors
/// A message about what is missing, invalid or not supported.
pub(super) fn chain(
    list: Option<&Value>,
    chunk: &[u64],
    dtype: Dtype,
    notes: &mut Vec<String>,
) -> Result<Chain, String> {
    of_layer(list, chunk, dtype, LAYERS, notes)
}

fn of_layer(
    list: Option<&Value>,
    chunk: &[u64],
    dtype: Dtype,
    layers: usize,
    notes: &mut Vec<String>,
) -> Result<Chain, String> {
    let list = list.and_then(Value::as_array).ok_or("has no list 'codecs' in its metadata")?;
    if layers == 0 {
        return Err(format!("has more than {LAYERS} layers of shards"));
    }
    let mut order: Option<Vec<usize>> = None;
    let (mut filters, mut steps) = (Vec::new(), Vec::new());
    let mut body = None;
    for codec in list {
        let name = codec.get("name").and_then(Value::as_str).or(codec.as_str());
        let name = name.ok_or_else(|| {
            format!("has a codec without a name: {}", shorten(&codec.to_string()))
        })?;
        let config = codec.get("configuration").unwrap_or(&Value::Null);
        let stored_chunk: Vec<u64> = match &order {
            Some(order) => order.iter().map(|d| chunk[*d]).collect(),
            None => chunk.to_vec(),
        };
        match (name, &body) {
            ("transpose", None) => order = Some(transpose(config, order.as_deref(), chunk.len())?),
            ("bytes" | "endian", None) => body = Some(Body::Elements(endian(config, dtype)?)),
            ("sharding_indexed", None) => {
                let shard = sharding(config, &stored_chunk, dtype, layers, notes)?;
                body = Some(Body::Shard(Box::new(shard)));
            }
            ("transpose" | "bytes" | "endian" | "sharding_indexed", Some(_)) => {
                return Err(format!("has the codec '{name}' after its elements became bytes"));
            }
            _ => match (Step::parse(name, config)?, &body) {
                (Some(step), Some(_)) => steps.push(step),
                (Some(step), None) if step.is_of_elements() && order.is_none() => {
                    filters.push(step);
                }
                (Some(_), None) => {
                    return Err(format!("has the codec '{name}' before its elements became bytes"));
                }
                (None, _) if may_be_ignored(codec) => {
                    notes.push(format!(
                        "its codec '{}' is ignored, as its metadata allow",
                        shorten(name)
                    ));
                }
                (None, _) => return Err(unknown(name)),
            },
        }
    }
    let body = body.ok_or("has no codec 'bytes' or 'sharding_indexed' in its metadata")?;
    if !filters.is_empty() && !matches!(body, Body::Elements(ByteOrder::Little)) {
        return Err("has filters before shards or big-endian bytes, which are not supported".into());
    }
    filters.extend(steps);
    Ok(Chain { order, body, steps: filters })
}

/// Composes a transposition with those before it. Returns the array dimension of each stored
/// dimension.
fn transpose(config: &Value, before: Option<&[usize]>, rank: usize) -> Result<Vec<usize>, String> {
    let listed = config.get("order");
    let order: Option<Vec<usize>> = match listed.and_then(Value::as_str) {
        // the spelling in drafts of the specification
        Some("C") => Some((0..rank).collect()),
        Some("F") => Some((0..rank).rev().collect()),
        _ => sizes(listed).map(|list| list.into_iter().map(|d| d as usize).collect()),
    };
    let order = order.filter(|order| {
        let mut sorted = order.clone();
        sorted.sort_unstable();
        sorted == (0..rank).collect::<Vec<_>>()
    });
    let order = order.ok_or_else(|| {
        let shown = shorten(&listed.unwrap_or(&Value::Null).to_string());
        format!("has the transposition {shown}, which is no order of {rank} dimensions")
    })?;
    Ok(match before {
        Some(before) => order.iter().map(|d| before[*d]).collect(),
        None => order,
    })
}

fn endian(config: &Value, dtype: Dtype) -> Result<ByteOrder, String> {
    match config.get("endian").and_then(Value::as_str) {
        Some("little") => Ok(ByteOrder::Little),
        Some("big") => Ok(ByteOrder::Big),
        None if dtype.size() == 1 => Ok(ByteOrder::Little),
        _ => {
            let shown = shorten(&config.to_string());
            Err(format!("has the codec 'bytes' with {shown}; endian is little or big"))
        }
    }
}

fn sharding(
    config: &Value,
    outer: &[u64],
    dtype: Dtype,
    layers: usize,
    notes: &mut Vec<String>,
) -> Result<Shard, String> {
    let chunk = sizes(config.get("chunk_shape"));
    let chunk = chunk.ok_or("has shards without a list of sizes 'chunk_shape'")?;
    if chunk.len() != outer.len() {
        return Err(format!(
            "has shards of {} dimensions with inner chunks of {}",
            outer.len(),
            chunk.len()
        ));
    }
    if chunk.contains(&0) || outer.iter().zip(&chunk).any(|(o, i)| !o.is_multiple_of(*i)) {
        return Err(format!(
            "has shards of {outer:?}, which are no multiples of their inner chunks of {chunk:?}"
        ));
    }
    let chain = of_layer(config.get("codecs"), &chunk, dtype, layers - 1, notes)?;
    let at_end = match config.get("index_location").and_then(Value::as_str) {
        None | Some("end") => true,
        Some("start") => false,
        Some(other) => {
            return Err(format!("has shards with the index at '{}'", shorten(other)));
        }
    };
    let index = match config.get("index_codecs") {
        None => Chain {
            order: None,
            body: Body::Elements(ByteOrder::Little),
            steps: vec![Step::parse("crc32c", &Value::Null)?.ok_or("has no crc32c")?],
        },
        list => of_layer(list, &[1], Dtype::U64, 1, notes)?,
    };
    match (index.body, codecs::encoded(&index.steps, Size::Exactly(16))) {
        (Body::Elements(order), Size::Exactly(_)) => {
            Ok(Shard { chunk, chain, order, steps: index.steps, at_end })
        }
        _ => Err("has shards whose index has no size of its own; it cannot be found".into()),
    }
}
