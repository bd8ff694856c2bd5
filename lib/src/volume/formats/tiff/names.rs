//! Names for numeric values of TIFF tags.

/// The common name of a compression (tag 259).
pub(super) fn compression(code: u64) -> String {
    let name = match code {
        1 => "none",
        2 => "CCITT modified Huffman",
        3 => "CCITT group 3 fax",
        4 => "CCITT group 4 fax",
        5 => "LZW",
        6 => "old-style JPEG",
        7 => "JPEG",
        8 | 32946 => "deflate",
        9 | 10 | 34661 => "JBIG",
        99 => "JPEG of a digital camera",
        32766 => "NeXT",
        32771 => "CCITT word-aligned",
        32773 => "PackBits",
        32809 => "ThunderScan",
        33003 | 33004 | 33005 | 34712 => "JPEG 2000",
        34676 | 34677 => "SGI LogLuv",
        34887 => "LERC",
        34892 => "lossy JPEG of DNG",
        34925 => "LZMA",
        34926 | 50000 => "zstd",
        34927 | 50001 => "WebP",
        34933 => "PNG",
        34934 | 22610 | 48124 => "JPEG XR",
        50002 | 52546 => "JPEG XL",
        _ => return format!("compression {code}"),
    };
    format!("{name} (compression {code})")
}

/// The name of a photometric interpretation (tag 262).
pub(super) fn interpretation(code: u64) -> String {
    let name = match code {
        0 => "white is zero",
        1 => "black is zero",
        2 => "RGB",
        3 => "a palette of colours",
        4 => "a transparency mask",
        5 => "inks (CMYK)",
        6 => "YCbCr",
        8..=10 => "CIE L*a*b*",
        32803 => "a colour filter array",
        32844 | 32845 => "CIE Log L",
        34892 => "linear raw",
        _ => return format!("interpretation {code}"),
    };
    format!("{name} (photometric interpretation {code})")
}
