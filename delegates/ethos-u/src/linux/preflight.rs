//! What Linux's driver checks before it lets a job run, done here first, so that a refusal says what is wrong.

use super::uapi::{Job, NpuInfo};
use delegraph_ethos_u_sim::{Config, Extents, Product, Stream};
use delegraph_sdk::{Error, Status};

/// The region that is the device's own memory.
const SRAM_REGION: usize = 2;

/// Sizes of the buffers that a job gives its regions; 0: none.
pub type Sizes = [u64; 8];

/// Checks a stream against a device and the buffers of its job.
///
/// # Errors
/// As the driver answers: another device (`EINVAL`), a region without a buffer (`ENOENT`), a buffer for an unused region (`EINVAL`), a buffer
/// that is too small (`EOVERFLOW`), more of the device's memory than there is (`EINVAL`), or a stream that it cannot read.
pub fn check(stream: &Stream, device: &NpuInfo, job: &Job, sizes: &Sizes) -> Result<Extents, Error> {
    let refuse = |text: String| Error::new(Status::UNSUPPORTED, text);
    let own = Config::of(device.config, 0).map_err(|e| refuse(e.to_string()))?;
    if own.product == Product::U55 {
        return Err(refuse("Linux's driver is for U65 and U85".to_string()));
    }
    if (own.product, own.macs) != (stream.config.product, stream.config.macs) {
        return Err(refuse(format!(
            "the stream is for {}-{}, the device is {}-{}",
            stream.config.product.name(),
            stream.config.macs,
            own.product.name(),
            own.macs
        )));
    }
    if job.sram_size > device.sram_size {
        return Err(refuse(format!(
            "{} bytes of the device's memory are asked for, and it has {}",
            job.sram_size, device.sram_size
        )));
    }
    let extents = Extents::of(stream).map_err(|e| Error::corrupt(e.to_string()))?;
    if extents.branches {
        return Err(refuse(
            "the stream branches, and it is not known whether the driver takes that".to_string(),
        ));
    }
    for (region, used) in extents.used.iter().enumerate() {
        let handle = job.region_bo_handles[region];
        let sram = region == SRAM_REGION && job.sram_size > 0;
        match (*used, handle, sram) {
            (_, handle, true) if handle != 0 => {
                return Err(refuse("region 2 is both a buffer and the device's memory".to_string()));
            }
            (None, 0, _) => {}
            (None, _, _) => {
                return Err(refuse(format!(
                    "a buffer for region {region}, which the stream does not use"
                )));
            }
            (Some(used), _, true) if used > u64::from(job.sram_size) => {
                return Err(refuse(format!(
                    "the stream uses {used} bytes of the device's memory, not {}",
                    job.sram_size
                )));
            }
            (Some(_), _, true) => {}
            (Some(_), 0, false) => return Err(refuse(format!("no buffer for region {region}"))),
            (Some(used), _, false) if used > sizes[region] => {
                return Err(refuse(format!(
                    "region {region} uses {used} bytes, and its buffer has {}",
                    sizes[region]
                )));
            }
            (Some(_), _, false) => {}
        }
    }
    Ok(extents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use delegraph_ethos_u_sim::container::blocks;

    fn case() -> Vec<u8> {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/sim/tests/cases/ethos-u65-256/net-residual.vela"
        );
        std::fs::read(path).unwrap()
    }

    #[test]
    fn a_job_is_refused_as_the_driver_would() {
        let bytes = case();
        let blocks = blocks(&bytes).unwrap();
        let find = |name: &str| blocks.iter().find(|b| b.name == name).unwrap().data;
        let number = |name: &str| u64::from(u32::from_le_bytes(find(name).try_into().unwrap()));
        let stream = Stream::parse(find("cmd_data")).unwrap();
        let device = NpuInfo {
            id: stream.id,
            config: stream.config.word,
            sram_size: 384 << 10,
        };
        let mut job = Job {
            command_bo: 1,
            sram_size: number("fast_size") as u32,
            ..Job::default()
        };
        let mut sizes = Sizes::default();
        (sizes[0], sizes[1]) = (find("weight_data").len() as u64, number("scratch_size"));
        (job.region_bo_handles[0], job.region_bo_handles[1]) = (2, 3);
        check(&stream, &device, &job, &sizes).unwrap();

        let refused = |job: &Job, sizes: &Sizes| check(&stream, &device, job, sizes).unwrap_err().message;
        let without = Job {
            region_bo_handles: [0, 3, 0, 0, 0, 0, 0, 0],
            ..job
        };
        assert_eq!(refused(&without, &sizes), "no buffer for region 0");
        let more = Job {
            region_bo_handles: [2, 3, 0, 0, 5, 0, 0, 0],
            ..job
        };
        assert_eq!(
            refused(&more, &sizes),
            "a buffer for region 4, which the stream does not use"
        );
        let mut small = sizes;
        small[0] = 16;
        assert!(refused(&job, &small).starts_with("region 0 uses "));
        let wide = Job {
            sram_size: 1 << 20,
            ..job
        };
        assert!(refused(&wide, &sizes).contains("of the device's memory are asked for"));
        let u85 = Config::new(Product::U85, 256);
        let other = NpuInfo {
            config: u85.word,
            ..device
        };
        assert!(check(&stream, &other, &job, &sizes).is_err());
        let branching = Stream {
            config: u85,
            id: 0,
            words: vec![0x4100, 8, 0xffff_0000],
        };
        let refusal = check(&branching, &other, &Job::default(), &Sizes::default()).unwrap_err();
        assert!(
            refusal.message.starts_with("the stream branches"),
            "{}",
            refusal.message
        );
    }
}
