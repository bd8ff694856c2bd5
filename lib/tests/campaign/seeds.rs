//! Valid files of every supported kind, from our own writers and by hand.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use serde_json::Map;
use tiff::encoder::{Compression, DeflateLevel, TiffEncoder, colortype};
use tiff::tags::Tag;
use voxloom::blocks::{self, Context};
use voxloom::geom::{Affine, Box3, Grid, LocalAffines};
use voxloom::interchange::{self, Reading, TargetFormat};
use voxloom::table::{self, BlockRow, Match, Spot, Status};
use voxloom::transform::{self, AxisOrder, Step};
use voxloom::volume::{Codec, Dtype, Existing, FieldOutput, Format, Output, Spec};

const ROWS: [[f64; 4]; 3] =
    [[1.0, 0.1, 0.0, -81.25], [0.0, 0.9, 0.25, 2.0], [0.02, 0.0, 1.1, 1e-9]];

struct Seeds {
    root: PathBuf,
    scratch: tempfile::TempDir,
}

/// Writes all seeds into the folders of their targets; files of earlier failures are kept.
pub(crate) fn write(root: &Path) {
    let seeds = Seeds { root: root.to_owned(), scratch: tempfile::tempdir().unwrap() };
    seeds.volumes();
    seeds.images();
    seeds.fields();
    seeds.transforms();
    seeds.flat_fields();
    seeds.texts();
    seeds.tables();
    let folder = seeds.scratch.path().join("ledger");
    fs::create_dir(&folder).unwrap();
    seeds.put("ledger", "ours", &blocks::fuzzing::seed(&folder).unwrap());
}

impl Seeds {
    fn put(&self, target: &str, name: &str, bytes: &[u8]) {
        let folder = self.root.join(target);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(name), bytes).unwrap();
    }

    fn at(&self, name: &str) -> String {
        self.scratch.path().join(name).display().to_string()
    }

    fn volume(
        &self,
        name: &str,
        format: Format,
        codec: Codec,
        shard: Option<[usize; 3]>,
    ) -> String {
        let grid = Grid::new([4, 5, 7], [2.0, 1.0, 1.0], [0.0; 3]);
        let spec = Spec { grid, dtype: Dtype::U16, chunk: [2, 5, 4], shard, codec, format };
        let location = self.at(name);
        let output = Output::create(&location, &spec, Existing::Refuse).unwrap();
        for part in grid.bounds().tiles(output.unit()) {
            let voxel = |v: Box3| (v.min[0] * 400 + v.min[1] * 17 + v.min[2] % 5) as u16;
            output.write(&part, &part.tiles([1; 3]).map(voxel).collect::<Vec<_>>()).unwrap();
        }
        location
    }

    fn volumes(&self) {
        let codecs = [Codec::Raw, Codec::Blosc, Codec::Gzip, Codec::Zstd, Codec::Lz4];
        for codec in codecs {
            for shard in [None, Some([4, 5, 8])] {
                let name = format!("{codec:?}{}", if shard.is_some() { "-shard" } else { "" });
                let name = name.to_lowercase();
                let array = self.volume(&format!("{name}.zarr"), Format::Zarr3, codec, shard);
                self.joined("zarr3", &name, &array, &["zarr.json"], "c/0/0/0");
            }
            let name = format!("{codec:?}").to_lowercase();
            let array = self.volume(&format!("{name}-2.zarr"), Format::Zarr2, codec, None);
            self.joined("zarr2", &name, &array, &[".zarray", ".zattrs"], "0/0/0");
            let array = self.volume(&format!("{name}.n5"), Format::N5, codec, None);
            self.joined("n5", &name, &array, &["../attributes.json", "attributes.json"], "0/0/0");
        }
        let cosem = br#"{"pixelResolution": {"unit": "nm", "dimensions": [4, 4, 8]}, "scales": [[1,1,1],[2,2,2]]}"#;
        let array = br#"{"dimensions": [7, 5, 4], "blockSize": [4, 5, 2], "dataType": "uint16", "compression": {"type": "raw"}, "transform": {"axes": ["z", "y", "x"], "units": ["nm", "nm", "nm"], "scale": [8, 4, 4], "translate": [0, 0, 0]}}"#;
        let head = [0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 5, 0, 0, 0, 2];
        self.put("n5", "cosem", &[&cosem[..], b"\0", array, b"\0", &head, &[3; 80]].concat());
    }

    /// Saves as a seed the metadata files and one chunk of the only array of a volume, separated by
    /// zero bytes.
    fn joined(&self, target: &str, name: &str, volume: &str, metadata: &[&str], chunk: &str) {
        let levels = ["", "0", "s0"].map(|level| Path::new(volume).join(level));
        let array = levels.iter().find(|level| level.join(chunk).is_file()).unwrap();
        let mut bytes = Vec::new();
        for name in metadata {
            bytes.extend(fs::read(array.join(name)).unwrap_or_default());
            bytes.push(0);
        }
        bytes.extend(fs::read(array.join(chunk)).unwrap());
        self.put(target, name, &bytes);
    }

    fn images(&self) {
        let ome = r#"<OME><Image ID="a"><Pixels DimensionOrder="XYZCT" SizeX="8" SizeY="6" SizeZ="2" SizeC="2" SizeT="1" PhysicalSizeX="0.5" PhysicalSizeXUnit="nm"><TiffData IFD="0" PlaneCount="4"/></Pixels></Image></OME>"#;
        let imagej = "ImageJ=1.54f\nimages=4\nchannels=2\nslices=2\nunit=\\u00B5m\nspacing=2\n";
        let tifffile = r#"{"shape": [2, 2, 6, 8], "axes": "CZYX"}"#;
        self.put("tiff", "ome", &tiff(ome, 4, Compression::Lzw));
        self.put("tiff", "imagej", &tiff(imagej, 4, Compression::Deflate(DeflateLevel::Fast)));
        self.put("tiff", "tifffile", &tiff(tifffile, 4, Compression::Packbits));
        self.put("tiff", "plain", &tiff("", 3, Compression::Uncompressed));
        let grey = png(png::ColorType::Grayscale, png::BitDepth::Sixteen, &[3; 96]);
        self.put("png", "grey", &grey);
        let palette = png(png::ColorType::Indexed, png::BitDepth::Two, &[0b1101; 12]);
        self.put("png", "palette", &palette);
        self.put("png", "colour", &png(png::ColorType::Rgba, png::BitDepth::Eight, &[9; 192]));
        for (target, name, format) in
            [("npy", "a.npy", Format::Npy), ("tiff", "a.tif", Format::Tiff)]
        {
            let file = self.volume(name, format, Codec::Blosc, None);
            self.put(target, "ours", &fs::read(file).unwrap());
        }
        for (name, dtype, order) in [("flat", "<f4", "False"), ("fortran", ">i8", "True")] {
            let head =
                format!("{{'descr': '{dtype}', 'fortran_order': {order}, 'shape': (2, 3), }}\n");
            let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
            bytes.extend((head.len() as u16).to_le_bytes());
            bytes.extend(head.bytes());
            bytes.extend([7; 48]);
            self.put("npy", name, &bytes);
        }
        let image = |version: &str, more: &str| {
            format!(
                r#"{{{more}"multiscales": [{{{version}"axes": [{{"name": "z", "type": "space", "unit": "micrometer"}}, {{"name": "y", "type": "space"}}, {{"name": "x", "type": "space", "unit": "nanometer"}}], "datasets": [{{"path": "0", "coordinateTransformations": [{{"type": "scale", "scale": [2, 1, 1]}}, {{"type": "translation", "translation": [1, 2, 3]}}]}}, {{"path": "1", "coordinateTransformations": [{{"type": "scale", "scale": [4, 2, 2]}}]}}], "coordinateTransformations": [{{"type": "scale", "scale": [1, 1, 1]}}]}}]}}"#
            )
        };
        self.put(
            "ome",
            "old",
            image(r#""version": "0.4", "#, r#""omero": {"channels": []}, "#).as_bytes(),
        );
        let new = image("", r#""version": "0.5", "#);
        self.put("ome", "new", format!(r#"{{"ome": {new}}}"#).as_bytes());
    }

    fn field(&self, name: &str) -> String {
        let grid = Grid::new([3, 4, 5], [2.0, 1.0, 1.0], [0.5; 3]);
        let location = self.at(name);
        let output = FieldOutput::create(&location, &grid, grid.shape, Existing::Refuse).unwrap();
        let vectors: Vec<[f32; 3]> = (0..60).map(|i| [0.0, i as f32 / 8.0, -1.0]).collect();
        output.write(&grid.bounds(), &vectors).unwrap();
        location
    }

    fn fields(&self) {
        let field = self.field("field.zarr");
        self.joined("field", "ours", &field, &["zarr.json"], "c/0/0/0/0");
        let affines = LocalAffines {
            domain: Grid::new([8, 8, 8], [1.0; 3], [0.0; 3]),
            block: [8, 4, 8],
            overlap: [2.0; 3],
            affines: vec![Affine::from_rows(ROWS); 2],
        };
        let location = self.at("affines.zarr");
        transform::write_local_affines(&location, &affines, Map::new(), Existing::Refuse).unwrap();
        self.joined("field", "local-affines", &location, &["zarr.json"], "c/0/0/0/0/0");
    }

    /// The bytes of a transform in the file format of another program.
    fn turned(&self, source: &str, target: TargetFormat, name: &str) -> Vec<u8> {
        let destination = self.at(name);
        let (reading, ctx) = (Reading::default(), Context::default());
        interchange::transform(source, &reading, &destination, target, None, &ctx).unwrap();
        fs::read(destination).unwrap()
    }

    fn transforms(&self) {
        let map = Affine::from_rows(ROWS);
        let (matrix, chain) = (self.at("matrix.txt"), self.at("chain.json"));
        transform::write_matrix_text(Path::new(&matrix), &map, AxisOrder::Zyx).unwrap();
        let steps = [Step::Affine(map), Step::Affine(Affine::translation([1.0, 2.0, 3.0]))];
        transform::write_document(Path::new(&chain), &steps).unwrap();
        self.put("matrix", "ours", &fs::read(&matrix).unwrap());
        self.put("chain", "ours", &fs::read(&chain).unwrap());
        let field = self.field("displacements.zarr");
        for (target, format, name) in [
            ("itk", TargetFormat::Itk, "a.tfm"),
            ("matlab", TargetFormat::Ants, "b.mat"),
            ("matrix", TargetFormat::Greedy, "c.mat"),
        ] {
            self.put(target, "theirs", &self.turned(&matrix, format, name));
        }
        for (target, format, name) in [
            ("nifti", TargetFormat::Nifti, "a.nii"),
            ("nifti", TargetFormat::Nifti, "b.nii.gz"),
            ("nrrd", TargetFormat::Nrrd, "a.nrrd"),
        ] {
            self.put(target, name, &self.turned(&field, format, name));
            self.put("transform", name, &self.turned(&field, format, &format!("t-{name}")));
        }
    }

    fn texts(&self) {
        let chain = r#"{"type": "sequence", "direction": "fixed-to-moving", "axes": ["x", "y", "z"], "unit": "nanometer", "transformations": [{"type": "scale", "scale": [1, 2, 3]}, {"type": "rotation", "rotation": [[0, 1, 0], [-1, 0, 0], [0, 0, 1]]}, {"type": "bijection", "forward": {"type": "translation", "translation": [1, 2, 3]}, "inverse": {"type": "identity"}}, {"type": "affine", "affine": [[1, 0, 0, 5], [0, 1, 0, 6], [0, 0, 1, 7]]}]}"#;
        self.put("chain", "by-hand", chain.as_bytes());
        let elastix = "(Transform \"EulerTransform\")\n(TransformParameters 0.1 0 0.2 3 4 5)\n(InitialTransformParameterFileName \"NoInitialTransform\")\n(HowToCombineTransforms \"Compose\")\n(FixedImageDimension 3)\n(CenterOfRotationPoint 1 2 3)\n(ComputeZYX \"false\")\n";
        self.put("elastix", "euler", elastix.as_bytes());
        let numbers = "0.5 ".repeat(32);
        let spline = format!(
            "(Transform \"BSplineTransform\")\n(TransformParameters {numbers})\n(InitialTransformParametersFileName \"NoInitialTransform\")\n(HowToCombineTransforms \"Add\")\n(FixedImageDimension 2)\n(GridSize 4 4)\n(GridIndex 0 0)\n(GridSpacing 2 2)\n(GridOrigin -2 -2)\n(GridDirection 1 0 0 1)\n(BSplineTransformSplineOrder 3)\n(UseCyclicTransform \"false\")\n"
        );
        self.put("elastix", "spline", spline.as_bytes());
        self.put("transform", "elastix", elastix.as_bytes());
        let euler = "Transform: Euler3DTransform_double_3_3\nParameters: 0.1 0 0 1 2 3\nFixedParameters: 0 0 0 0\n";
        let composite = format!(
            "#Insight Transform File V1.0\n#Transform 0\nTransform: CompositeTransform_double_3_3\n#Transform 1\n{euler}#Transform 2\n{euler}"
        );
        self.put("itk", "composite", composite.as_bytes());
        let field = format!(
            "#Insight Transform File V1.0\nTransform: DisplacementFieldTransform_double_2_2\nParameters: {}\nFixedParameters: 4 4 0 0 2 2 1 0 0 1\n",
            "1 ".repeat(32)
        );
        self.put("itk", "field", field.as_bytes());
        let spline = format!(
            "#Insight Transform File V1.0\nTransform: BSplineTransform_double_2_2\nParameters: {}\nFixedParameters: 4 4 0 0 2 2 1 0 0 1\n",
            "1 ".repeat(32)
        );
        self.put("itk", "spline", spline.as_bytes());
        self.put("transform", "itk", composite.as_bytes());
        let row = |(i, [x, y, z]): (usize, &[i32; 3])| {
            format!("\"Pt-{i}\",\"true\",{x}.5,{y},{z},{x},{y},{z}\n")
        };
        let points = [[0, 0, 0], [9, 0, 0], [0, 9, 0], [0, 0, 9], [5, 6, 7]];
        let landmarks = points.iter().enumerate().map(row).collect::<Vec<_>>().concat();
        self.put("bigwarp", "space", landmarks.as_bytes());
        let flat = "Pt-0,true,1,2,3,4\nPt-1,true,5,9,7,8\nPt-2,false,Infinity,Infinity,1,2\nPt-3,true,0,5,1,6\n";
        self.put("bigwarp", "plane", flat.as_bytes());
        self.put("transform", "bigwarp", flat.as_bytes());
        let system = |name: &str| {
            format!(
                r#"{{"name": "{name}", "axes": [{{"name": "z", "type": "space", "unit": "micrometer"}}, {{"name": "y", "type": "space", "unit": "micrometer"}}, {{"name": "x", "type": "space", "unit": "micrometer"}}]}}"#
            )
        };
        let ngff = format!(
            r#"{{"ome": {{"version": "0.6", "coordinateSystems": [{}, {}], "coordinateTransformations": [{{"type": "sequence", "name": "a", "input": "fixed", "output": "moving", "transformations": [{{"type": "scale", "scale": [1, 2, 3]}}, {{"type": "inverseOf", "transformation": {{"type": "translation", "translation": [1, 2, 3]}}}}, {{"type": "mapAxis", "mapAxis": [0, 2, 1]}}]}}]}}}}"#,
            system("fixed"),
            system("moving")
        );
        self.put("ngff", "by-hand", ngff.as_bytes());
        self.put("transform", "ngff", ngff.as_bytes());
        let yaml = "# all programs\nthreads: 2\nblock-size: [64, 128, 128]\nquiet: true\nextract-spots:\n  radius: 1..4um\n  mask: [a, b]\nransac: {align-threshold: 2}\nx-axis: &a {p: 1}\n";
        self.put("parameters", "by-hand", yaml.replace("x-axis: &a {p: 1}\n", "").as_bytes());
        self.put(
            "parameters",
            "json",
            br#"{"memory": "2G", "extract-spots": {"radius": "1..4um"}}"#,
        );
        let receipt = r#"{"program": "deform", "version": "0.1.0", "command": ["deform", "a"], "seconds": {"wall": 1.5, "cpu": 2}, "peak_memory": 1000, "parameters": {"a": {"b": [1, 2]}}, "results": {"x": 1}, "inputs": [{"location": "a", "shape": [1, 2, 3], "spacing": [1, 1, 1], "dtype": "uint16"}], "outputs": ["b"], "blocks": {"done": 3, "empty": 1, "fallback": [{"index": [0, 0, 1], "reason": "no match"}], "failed": []}, "warnings": ["w"]}"#;
        self.put("receipt", "by-hand", receipt.as_bytes());
    }

    /// NIfTI files with the conventions of NiftyReg and SPM, and MetaImage.
    fn flat_fields(&self) {
        let nifti = fs::read(self.root.join("nifti/a.nii")).unwrap();
        for (name, intent, kind) in [
            ("niftyreg-positions", "NREG_TRANS", 0.0),
            ("niftyreg-grid", "NREG_TRANS", 2.0),
            ("spm", "Mapping", 0.0),
        ] {
            let mut bytes = nifti.clone();
            bytes[56..60].copy_from_slice(&f32::to_le_bytes(kind));
            bytes[328..344].fill(0);
            bytes[328..328 + intent.len()].copy_from_slice(intent.as_bytes());
            if name == "niftyreg-grid" {
                // 4 x 4 x 4 control points, the minimum for a cubic B-spline
                for axis in 1..=3 {
                    bytes[40 + 2 * axis..][..2].copy_from_slice(&4i16.to_le_bytes());
                }
                bytes.resize(352 + 64 * 3 * 4, 0);
            }
            self.put("nifti", name, &bytes);
        }
        let head = "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = False\nTransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 1 2 3\nElementSpacing = 1 1 2\nDimSize = 4 3 2\nElementNumberOfChannels = 3\nElementType = MET_FLOAT\nElementDataFile = LOCAL\n";
        let vectors: Vec<u8> = (0..72).flat_map(|i| f32::to_le_bytes(i as f32 * 0.125)).collect();
        self.put("metaimage", "binary", &[head.as_bytes(), &vectors].concat());
        let plane = "ObjectType = Image\nNDims = 2\nBinaryData = False\nOffset = 0 0\nElementSpacing = 1 1\nDimSize = 2 2\nElementNumberOfChannels = 2\nElementType = MET_DOUBLE\nElementDataFile = LOCAL\n0 0.5 1 -1 2 0 0 1e-3\n";
        self.put("metaimage", "words", plane.as_bytes());
    }

    fn tables(&self) {
        let path = self.scratch.path().join("t.csv");
        let put = |name: &str| self.put("table", name, &fs::read(&path).unwrap());
        let spot =
            Spot { position: [1.0, 2.5, 1e-7], radius: 1.5, response: 0.25, intensity: 300.0 };
        table::write_spots(&path, &[spot; 2]).unwrap();
        put("spots");
        let pair = Match {
            fixed: [1.0; 3],
            moving: [2.0; 3],
            correlation: 0.9,
            inlier: true,
            residual: 0.5,
        };
        table::write_matches(&path, &[pair; 2]).unwrap();
        put("matches");
        let row = BlockRow {
            index: [0, 1, 2],
            status: Status::Fallback,
            reason: "a, \"b\"".to_owned(),
            spots: 9,
            matches: 8,
            inliers: 7,
            median: Some(0.5),
            rms: None,
            shift: [0.5, -1.0, 1e-9],
        };
        table::write_blocks(&path, &[row]).unwrap();
        put("blocks");
        self.put(
            "table",
            "points",
            b"\xef\xbb\xbfx_um, y_um,z_um,gene\n# a remark\n1,2,3,\"a,b\"\n4,5,6.50,007\n",
        );
    }
}

fn tiff(description: &str, pages: usize, compression: Compression) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    let mut encoder = TiffEncoder::new(&mut out).unwrap().with_compression(compression);
    for page in 0..pages as u16 {
        let mut image = encoder.new_image::<colortype::Gray16>(8, 6).unwrap();
        image.rows_per_strip(4).unwrap();
        if page == 0 {
            image.encoder().write_tag(Tag::ImageDescription, description).unwrap();
        }
        image.write_data(&(0..48).map(|i| i * page).collect::<Vec<u16>>()).unwrap();
    }
    out.into_inner()
}

fn png(color: png::ColorType, depth: png::BitDepth, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, 8, 6);
    encoder.set_color(color);
    encoder.set_depth(depth);
    if color == png::ColorType::Indexed {
        encoder.set_palette(vec![1; 12]);
    }
    encoder.write_header().unwrap().write_image_data(data).unwrap();
    out
}
