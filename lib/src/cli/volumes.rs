//! Flags with which a program selects an input volume. Most structs have no doc comments, because
//! clap would use them as the program's own description.
#![expect(missing_docs, reason = "a flattened struct's doc comment would open --help")]

use super::Length3;
use super::values::{Channels, parse_place, parse_voxel_size};
use crate::volume::{Error, Select, Volume};

macro_rules! volume_args {
    ($name:ident, $of:literal, $prefix:literal, $image:literal, $channel:literal, $time:literal, $spacing:literal, $origin:literal) => {
        #[derive(clap::Args, Clone, Debug, Default)]
        pub struct $name {
            #[arg(id = $image, long = $image, value_name = "N|NAME",
                  help = concat!("Image in the file of ", $of, " (OME-TIFF), from 0 or by name, if there \
                                  are several"))]
            pub image: Option<String>,
            #[arg(id = $channel, long = $channel, value_name = "N",
                  help = concat!("Channel of ", $of, ", from 0, if there are several"))]
            pub channel: Option<usize>,
            #[arg(id = $time, long = $time, value_name = "N",
                  help = concat!("Time point of ", $of, ", from 0, if there are several"))]
            pub time: Option<usize>,
            #[arg(id = $spacing, long = $spacing, value_name = "Z,Y,X[UNIT]",
                  value_parser = parse_voxel_size,
                  help = concat!("Voxel size of ", $of, " (nm, um, mm; default um) instead of that \
                                  in its metadata; Y,X for a plane"))]
            pub spacing: Option<Length3>,
            #[arg(id = $origin, long = $origin, value_name = "Z,Y,X[UNIT]",
                  allow_hyphen_values = true, value_parser = parse_place,
                  help = concat!("Centre of the first voxel of ", $of, " instead of that in its \
                                  metadata; Y,X for a plane"))]
            pub origin: Option<Length3>,
        }

        impl $name {
            /// The selected image, channel and time point, with the given spacing and origin.
            pub fn select(&self) -> Select {
                Select {
                    image: self.image.clone(),
                    channel: self.channel,
                    time: self.time,
                    spacing: self.spacing.map(|length| length.0),
                    origin: self.origin.map(|length| length.0),
                    prefix: $prefix,
                }
            }
        }
    };
}

volume_args!(VolumeArgs, "the volume", "", "image", "channel", "time", "spacing", "origin");
volume_args!(
    FixedArgs,
    "the fixed volume",
    "fixed-",
    "fixed-image",
    "fixed-channel",
    "fixed-time",
    "fixed-spacing",
    "fixed-origin"
);
volume_args!(
    MovingArgs,
    "the moving volume",
    "moving-",
    "moving-image",
    "moving-channel",
    "moving-time",
    "moving-spacing",
    "moving-origin"
);

/// The flags of programs that read the tiles of a project.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct TileArgs {
    /// Channel of the tiles, from 0, if there are several
    #[arg(long, value_name = "N")]
    pub channel: Option<usize>,
    /// Pixel size of the tiles (nm, um, mm; default um) instead of that in the table or in the images;
    /// Z,Y,X for planes at a distance
    #[arg(long, value_name = "Y,X[UNIT]", value_parser = parse_voxel_size)]
    pub spacing: Option<Length3>,
}

impl TileArgs {
    /// The selected channel, with the given pixel size.
    pub fn select(&self) -> Select {
        let spacing = self.spacing.map(|length| length.0);
        Select { channel: self.channel, spacing, ..Select::default() }
    }
}

/// Like [`MovingArgs`], for programs that read several channels of the moving volume.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct MovingChannelsArgs {
    /// Image in the file of the moving volume (OME-TIFF), from 0 or by name, if there are several
    #[arg(long = "moving-image", value_name = "N|NAME")]
    pub image: Option<String>,
    /// Channel of the moving volume, from 0, if there are several; more than one separated by
    /// commas, or all
    #[arg(long = "moving-channel", value_name = "N[,N...]", value_parser = str::parse::<Channels>)]
    pub channels: Option<Channels>,
    /// Time point of the moving volume, from 0, if there are several
    #[arg(long = "moving-time", value_name = "N")]
    pub time: Option<usize>,
    /// Voxel size of the moving volume (nm, um, mm; default um) instead of that in its metadata;
    /// Y,X for a plane
    #[arg(long = "moving-spacing", value_name = "Z,Y,X[UNIT]", value_parser = parse_voxel_size)]
    pub spacing: Option<Length3>,
    /// Centre of the first voxel of the moving volume instead of that in its metadata; Y,X for a
    /// plane
    #[arg(long = "moving-origin", value_name = "Z,Y,X[UNIT]", allow_hyphen_values = true,
          value_parser = parse_place)]
    pub origin: Option<Length3>,
}

impl MovingChannelsArgs {
    /// Opens the selected channels, each as a volume.
    ///
    /// # Errors
    /// Those of [`Volume::open`].
    pub fn open(&self, location: &str) -> Result<Vec<Volume>, Error> {
        let of = |channel: Option<usize>| {
            let select = Select {
                image: self.image.clone(),
                channel,
                time: self.time,
                spacing: self.spacing.map(|length| length.0),
                origin: self.origin.map(|length| length.0),
                prefix: "moving-",
            };
            Volume::open(location, &select)
        };
        match &self.channels {
            None => Ok(vec![of(None)?]),
            Some(Channels::These(list)) => list.iter().map(|channel| of(Some(*channel))).collect(),
            Some(Channels::All) => {
                let first = of(Some(0))?;
                let others: Result<Vec<_>, _> =
                    (1..first.channels()).map(|channel| of(Some(channel))).collect();
                Ok([first].into_iter().chain(others?).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Both {
        #[command(flatten)]
        fixed: FixedArgs,
        #[command(flatten)]
        moving: MovingArgs,
        #[command(flatten)]
        only: VolumeArgs,
    }

    #[test]
    fn flags_of_a_pair_do_not_mix() {
        let both = Both::parse_from([
            "x",
            "--fixed-spacing",
            "400,200,200nm",
            "--moving-channel=2",
            "--origin",
            "-1,2,3",
        ]);
        assert_eq!(both.fixed.select().spacing, Some([0.4, 0.2, 0.2]));
        assert_eq!(both.fixed.select().channel, None);
        assert_eq!(both.moving.select().channel, Some(2));
        assert_eq!(both.only.select().origin, Some([-1.0, 2.0, 3.0]));
        assert!(Both::try_parse_from(["x", "--spacing", "0,1,1"]).is_err());
    }
}
