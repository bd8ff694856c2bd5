//! Encodes pixels as `data:` URLs.

/// An image of 8-bit pixels, row by row from the top.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Picture {
    pub(super) height: usize,
    pub(super) width: usize,
    /// Red, green, blue, alpha.
    pub(super) pixels: Vec<[u8; 4]>,
}

impl Picture {
    /// The picture as a `data:` URL that holds a PNG, for `src` and `href`.
    pub(super) fn address(&self) -> String {
        format!("data:image/png;base64,{}", base64(&self.png()))
    }

    /// The picture as a PNG with the smallest colour type that represents it.
    fn png(&self) -> Vec<u8> {
        let opaque = self.pixels.iter().all(|p| p[3] == 255);
        let grey = opaque && self.pixels.iter().all(|p| p[0] == p[1] && p[1] == p[2]);
        let (colour, channels) = match (grey, opaque) {
            (true, _) => (png::ColorType::Grayscale, 1),
            (false, true) => (png::ColorType::Rgb, 3),
            (false, false) => (png::ColorType::Rgba, 4),
        };
        let bytes: Vec<u8> = self.pixels.iter().flat_map(|p| p[..channels].to_vec()).collect();
        let mut out = Vec::new();
        let mut encoder = png::Encoder::new(&mut out, self.width as u32, self.height as u32);
        encoder.set_color(colour);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::High);
        let mut writer = encoder.write_header().expect("a header goes to memory");
        writer.write_image_data(&bytes).expect("as many bytes as the header says go to memory");
        writer.finish().expect("the end goes to memory");
        out
    }
}

/// Encodes bytes in Base64 (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let at = |i: usize| u32::from(group.get(i).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for i in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * i) & 63) as usize];
            out.push(if i <= group.len() { digit as char } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn a_png_holds_the_pixels_in_the_leanest_type() {
        for (pixel, colour, channels) in [
            ([9, 9, 9, 255], png::ColorType::Grayscale, 1),
            ([9, 8, 7, 255], png::ColorType::Rgb, 3),
            ([9, 8, 7, 0], png::ColorType::Rgba, 4),
        ] {
            let picture = Picture { height: 3, width: 5, pixels: vec![pixel; 15] };
            let bytes = picture.png();
            let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
            assert_eq!(reader.info().color_type, colour);
            let mut pixels = vec![0; 15 * channels];
            reader.next_frame(&mut pixels).unwrap();
            assert!(pixels.chunks(channels).all(|p| p == &pixel[..channels]));
        }
    }
}
