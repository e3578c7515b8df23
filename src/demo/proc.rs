//! The text of Linux's `/proc`, as numbers.
//! # Invariants: nothing here fails on any text; a line that is not understood does not count.
//! # Not here: files and time (`host`).

use std::collections::{BTreeMap, HashSet};

/// Time that a core has spent since boot, in clock ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CpuTime {
    busy: u64,
    idle: u64,
}

impl CpuTime {
    /// Share of the time since `before` that was busy, 0 to 100. None if no time has passed, or if
    /// a counter went back, as the one for waiting on disks sometimes does.
    pub(super) fn percent_since(self, before: CpuTime) -> Option<f64> {
        let busy = self.busy.checked_sub(before.busy)?;
        let idle = self.idle.checked_sub(before.idle)?;
        let all = busy.checked_add(idle).filter(|all| *all > 0)?;
        Some(100.0 * float(busy) / float(all))
    }
}

/// What `/proc/stat` says of the cores.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct CpuTimes {
    /// All cores together.
    pub(super) all: CpuTime,
    /// Every core that is on, by its number.
    pub(super) cores: BTreeMap<u32, CpuTime>,
}

/// Most cores that are told apart, so that a message stays small: about 24 KB.
const CORES_MAX: usize = 4096;

/// Reads `/proc/stat`. None if it does not say how busy all cores together are.
pub(super) fn parse_stat(text: &str) -> Option<CpuTimes> {
    let mut all = None;
    let mut cores = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("cpu")) {
        let mut words = line.split_ascii_whitespace();
        if line.starts_with(' ') {
            all = parse_cpu_time(words).or(all);
        } else if cores.len() < CORES_MAX
            && let Some(core) = words.next().and_then(|number| number.parse().ok())
            && let Some(time) = parse_cpu_time(words)
        {
            cores.insert(core, time);
        }
    }
    Some(CpuTimes { all: all?, cores })
}

/// Reads `user nice system idle iowait irq softirq steal`, of which old kernels have only four.
/// The guest columns that follow are part of user and nice.
fn parse_cpu_time<'t>(words: impl Iterator<Item = &'t str>) -> Option<CpuTime> {
    let mut time = CpuTime::default();
    let mut columns = 0;
    for (column, word) in words.take(8).enumerate() {
        let ticks: u64 = word.parse().ok()?;
        let sum = match column {
            3 | 4 => &mut time.idle,
            _ => &mut time.busy,
        };
        *sum = sum.checked_add(ticks)?;
        columns += 1;
    }
    (columns >= 4).then_some(time)
}

/// Reads `/proc/loadavg`: tasks that ran or waited, averaged over 1, 5 and 15 minutes.
pub(super) fn parse_loadavg(text: &str) -> Option<[f64; 3]> {
    let mut words = text.split_ascii_whitespace();
    let mut next = || -> Option<f64> {
        let load: f64 = words.next()?.parse().ok()?;
        (load.is_finite() && load >= 0.0).then_some(load)
    };
    Some([next()?, next()?, next()?])
}

/// What `/proc/meminfo` says, in bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) total: u64,
    /// What programs can get without swapping, at most `total`.
    pub(super) available: u64,
    pub(super) swap_used: Option<u64>,
}

/// Reads `/proc/meminfo`. None without a total, or without the line `MemAvailable` of Linux 3.14.
pub(super) fn parse_meminfo(text: &str) -> Option<Memory> {
    let [mut total, mut available, mut swap_total, mut swap_free] = [None; 4];
    for (name, value) in text.lines().filter_map(|line| line.split_once(':')) {
        let place = match name {
            "MemTotal" => &mut total,
            "MemAvailable" => &mut available,
            "SwapTotal" => &mut swap_total,
            "SwapFree" => &mut swap_free,
            _ => continue,
        };
        *place = parse_kibibytes(value);
    }
    let total = total.filter(|total| *total > 0)?;
    Some(Memory {
        total,
        available: available?.min(total),
        swap_used: swap_total
            .zip(swap_free)
            .map(|(total, free): (u64, u64)| total.saturating_sub(free)),
    })
}

/// Reads `123 kB`, which means kibibytes whatever it says.
fn parse_kibibytes(value: &str) -> Option<u64> {
    let number = value.trim().strip_suffix("kB")?.trim_end();
    number.parse::<u64>().ok()?.checked_mul(1024)
}

/// Counters of devices by name: bytes in, operations in, bytes out, operations out.
pub(super) type Counters = BTreeMap<String, [u64; 4]>;

/// Reads `/proc/diskstats`: bytes read, reads, bytes written, writes of each physical disk. What
/// lies on or in another disk of the list is left out, so that no byte counts twice.
pub(super) fn parse_diskstats(text: &str) -> Option<Counters> {
    let all: Vec<(&str, [u64; 4])> = text.lines().filter_map(parse_disk).collect();
    let names: HashSet<&str> = all.iter().map(|(name, _)| *name).collect();
    let heads: HashSet<String> = names.iter().filter_map(|name| multipath_head(name)).collect();
    let disks = all.into_iter().filter(|(name, _)| {
        !is_stacked(name) && !is_partition(name, &names) && !heads.contains(*name)
    });
    Some(disks.map(own_name).collect()).filter(|disks: &Counters| !disks.is_empty())
}

fn parse_disk(line: &str) -> Option<(&str, [u64; 4])> {
    // The kernel counts sectors of 512 bytes, whatever the disk's own are.
    const SECTOR_BYTES: u64 = 512;
    let mut words = line.split_ascii_whitespace().skip(2);
    let name = words.next()?;
    // Reads, merged, sectors, ms; then the same four for writes.
    let mut next = |skipped| words.nth(skipped)?.parse::<u64>().ok();
    let (reads, read_sectors) = (next(0)?, next(1)?);
    let (writes, written_sectors) = (next(1)?, next(1)?);
    Some((
        name,
        [
            read_sectors.checked_mul(SECTOR_BYTES)?,
            reads,
            written_sectors.checked_mul(SECTOR_BYTES)?,
            writes,
        ],
    ))
}

/// Whether the device keeps its bytes in memory or on other block devices.
fn is_stacked(name: &str) -> bool {
    const STACKED: [&str; 8] = ["loop", "ram", "zram", "dm-", "md", "bcache", "drbd", "zd"];
    STACKED.iter().any(|prefix| name.starts_with(prefix))
}

/// Whether the name is that of a disk in the list and a number: `sda1`, `nvme0n1p2`. Some virtual
/// machines have an `xvda1` without an `xvda`; that is a disk of its own.
fn is_partition(name: &str, names: &HashSet<&str>) -> bool {
    let disk = name.trim_end_matches(|c: char| c.is_ascii_digit());
    if disk.len() == name.len() {
        return false;
    }
    // Where the disk's own name ends in a digit, a `p` stands between.
    let numbered =
        disk.strip_suffix('p').filter(|disk| disk.ends_with(|c: char| c.is_ascii_digit()));
    names.contains(disk) || numbered.is_some_and(|disk| names.contains(disk))
}

/// The disk that programs see above the path `nvme0c1n2`: `nvme0n2`. Old kernels count only on the
/// paths and new ones on both, so the paths are what to believe.
fn multipath_head(name: &str) -> Option<String> {
    let (subsystem, path) = name.strip_prefix("nvme")?.split_once('c')?;
    let (_, namespace) = path.split_once('n')?;
    Some(format!("nvme{subsystem}n{namespace}"))
}

/// Reads `/proc/net/dev`: bytes and packets received, bytes and packets sent by each interface,
/// the loopback only if there is nothing else. What passes a bridge counts on every interface on
/// its way.
pub(super) fn parse_net_dev(text: &str) -> Option<Counters> {
    let mut interfaces: Counters = text.lines().filter_map(parse_interface).map(own_name).collect();
    if interfaces.len() > 1 {
        interfaces.remove("lo");
    }
    Some(interfaces).filter(|interfaces| !interfaces.is_empty())
}

fn parse_interface(line: &str) -> Option<(&str, [u64; 4])> {
    // Old kernels leave no space after the colon, and an alias has one in its name.
    let (name, counters) = line.rsplit_once(':')?;
    let mut words = counters.split_ascii_whitespace();
    let mut next = |skipped| words.nth(skipped)?.parse::<u64>().ok();
    let counters = [next(0)?, next(0)?, next(6)?, next(0)?];
    Some((name.trim(), counters))
}

fn own_name((name, counters): (&str, [u64; 4])) -> (String, [u64; 4]) {
    (name.to_owned(), counters)
}

/// How much the devices that are in both readings counted in between, summed over them. A counter
/// that went back, by a wrap or a reset, makes its sum unknown. None if no device is in both.
pub(super) fn counted(before: &Counters, after: &Counters) -> Option<[Option<u64>; 4]> {
    let mut sums = None;
    for (name, new) in after {
        let Some(old) = before.get(name) else {
            continue;
        };
        let sums = sums.get_or_insert([Some(0_u64); 4]);
        for ((sum, new), old) in sums.iter_mut().zip(new).zip(old) {
            *sum = sum.zip(new.checked_sub(*old)).and_then(|(sum, step)| sum.checked_add(step));
        }
    }
    sums
}

/// The number as a float, exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "it is shown with fewer digits")]
pub(super) fn float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STAT: &str = "cpu  100 20 30 1000 50 1 2 7 40 5\ncpu0 60 10 20 500 30 1 1 3 40 5\n\
        cpu1 40 10 10 500 20 0 1 4 0 0\ncpu11 1 2 3 4 5 6 7 8 0 0\nintr 320123 0 9 0\nctxt 99\n\
        btime 1763683200\nprocesses 4711\nprocs_running 1\nsoftirq 5 1 1 1 1 1\n";
    const MEMINFO: &str = "MemTotal:       24684084 kB\nMemFree:        23944860 kB\n\
        MemAvailable:   24213688 kB\nBuffers:          118272 kB\nSwapCached:            0 kB\n\
        SwapTotal:       2097152 kB\nSwapFree:        2000000 kB\nHugePages_Total:       0\n";
    const DISKSTATS: &str = "\
           7       0 loop0 9 9 9 9 9 9 9 9 9 9 9\n   1       0 ram0 9 9 9 9 9 9 9 9 9 9 9\n\
         259       0 nvme0n1 100 1 2000 4 50 2 600 8 0 9 9 0 0 0 0 0 0\n\
         259       1 nvme0n1p1 90 1 1000 4 50 2 600 8 0 9 9 0 0 0 0 0 0\n\
         259       2 nvme0n1p12 10 1 1000 4 50 2 600 8 0 9 9 0 0 0 0 0 0\n\
           8       0 sda 10 0 80 1 5 0 40 1 0 1 1\n   8       1 sda1 10 0 80 1 5 0 40 1 0 1 1\n\
          65     160 sdaa 1 0 8 1 2 0 16 1 0 1 1\n\
         254       0 vda 58254 18765 5048434 38515 8489 31770 4785576 14121 1 16124 53142\n\
         254       1 vda1 58254 18765 5048434 38515 8489 31770 4785576 14121 1 16124 53142\n\
         202       1 xvdb1 3 0 4 0 5 0 6 0 0 0 0\n 179       0 mmcblk0 1 0 1 0 1 0 1 0 0 0 0\n\
         179       1 mmcblk0p1 1 0 1 0 1 0 1 0 0 0 0\n 253       0 dm-0 9 9 9 9 9 9 9 9 9 9 9\n\
           9     127 md127 9 9 9 9 9 9 9 9 9 9 9\n 252       0 zram0 9 9 9 9 9 9 9 9 9 9 9\n";
    const NET_DEV: &str = "Inter-|   Receive                       |  Transmit\n \
        face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
        lo:    3193      29    0    0    0     0          0         0     3193      29    0    0    0     0       0          0\n  \
        eth0: 259117907    6885    1    2    3     4          5         6   332159    3680    0    0    0     0       0          0\n\
        wlp3s0:12 2 0 0 0 0 0 0 34 4 0 0 0 0 0 0\neth0:1: 1 2 0 0 0 0 0 0 3 4 0 0 0 0 0 0\n";

    #[test]
    fn busy_is_all_but_idle_and_waiting_and_guests_count_once() {
        let times = parse_stat(STAT).unwrap();
        let time = |busy, idle| CpuTime { busy, idle };
        assert_eq!(times.all, time(160, 1050));
        let cores = [(0, time(95, 530)), (1, time(65, 520)), (11, time(27, 9))];
        assert_eq!(times.cores, BTreeMap::from(cores));
    }

    #[test]
    fn a_kernel_with_four_columns_is_read_and_damaged_lines_are_not() {
        let all = |text| parse_stat(text).map(|times| (times.all.busy, times.all.idle));
        for (text, expected) in [
            ("cpu  1 2 3 4\n", Some((6, 4))),
            ("cpu  1 2 3 4\ncpu  1 2 3\n", Some((6, 4))),
            ("cpu  1 2 3\n", None),
            ("cpu  1 -2 3 4\n", None),
            ("cpu  18446744073709551615 1 3 4\n", None),
            ("cpu  18446744073709551616 1 3 4\n", None),
            ("cpu0 1 2 3 4\n", None),
            ("", None),
        ] {
            assert_eq!(all(text), expected, "{text}");
        }
    }

    #[test]
    fn no_more_cores_are_told_apart_than_the_limit() {
        let cores = (0..=CORES_MAX).map(|core| format!("cpu{core} 1 2 3 4"));
        let lines: Vec<String> = std::iter::once("cpu  1 2 3 4".to_owned()).chain(cores).collect();
        let times = parse_stat(&lines.join("\n")).unwrap();
        assert_eq!(times.cores.len(), CORES_MAX);
    }

    #[test]
    fn a_share_is_of_the_time_between_and_unknown_when_counters_go_back() {
        let share = |before: (u64, u64), after: (u64, u64)| {
            let time = |(busy, idle)| CpuTime { busy, idle };
            time(after).percent_since(time(before))
        };
        for (before, after, expected) in [
            ((10, 10), (11, 13), Some(25.0)),
            ((10, 10), (20, 10), Some(100.0)),
            ((10, 10), (10, 20), Some(0.0)),
            ((10, 10), (10, 10), None),
            ((10, 10), (9, 20), None),
            ((10, 10), (20, 9), None),
            ((0, 0), (u64::MAX, 1), None),
        ] {
            assert_eq!(share(before, after), expected, "{before:?} {after:?}");
        }
    }

    #[test]
    fn loads_are_three_finite_numbers() {
        for (text, expected) in [
            ("0.25 0.40 12.32 1/98 12013\n", Some([0.25, 0.4, 12.32])),
            ("0.25 0.40\n", None),
            ("inf 0.40 0.1 1/2 3", None),
            ("NaN 0.40 0.1 1/2 3", None),
            ("-1 0.40 0.1 1/2 3", None),
        ] {
            assert_eq!(parse_loadavg(text), expected, "{text}");
        }
    }

    #[test]
    fn memory_is_in_bytes_and_never_more_than_all() {
        let memory = |total, available, swap_used| Memory { total, available, swap_used };
        for (text, expected) in [
            (MEMINFO, Some(memory(24_684_084 * 1024, 24_213_688 * 1024, Some(97_152 * 1024)))),
            ("MemTotal: 4 kB\nMemAvailable: 5 kB\n", Some(memory(4096, 4096, None))),
            (
                "MemTotal: 4 kB\nMemAvailable: 0 kB\nSwapTotal: 1 kB\nSwapFree: 2 kB\n",
                Some(memory(4096, 0, Some(0))),
            ),
            ("MemTotal: 4 kB\nMemFree: 5 kB\n", None),
            ("MemTotal: 0 kB\nMemAvailable: 0 kB\n", None),
            ("MemTotal: 4\nMemAvailable: 5 kB\n", None),
            ("MemTotal: 18446744073709551615 kB\nMemAvailable: 5 kB\n", None),
        ] {
            assert_eq!(parse_meminfo(text), expected, "{text}");
        }
    }

    #[test]
    fn only_whole_physical_disks_count() {
        let disks = parse_diskstats(DISKSTATS).unwrap();
        let expected = [
            ("mmcblk0", [512, 1, 512, 1]),
            ("nvme0n1", [2000 * 512, 100, 600 * 512, 50]),
            ("sda", [80 * 512, 10, 40 * 512, 5]),
            ("sdaa", [8 * 512, 1, 16 * 512, 2]),
            ("vda", [5_048_434 * 512, 58_254, 4_785_576 * 512, 8489]),
            ("xvdb1", [4 * 512, 3, 6 * 512, 5]),
        ];
        assert_eq!(disks, expected.map(|(n, c)| (n.to_owned(), c)).into());
    }

    #[test]
    fn a_disk_with_several_paths_counts_on_its_paths() {
        let disks = parse_diskstats(
            "0 0 nvme0c0n1 5 0 6 0 7 0 8 0 0 0 0\n0 0 nvme0c1n1 1 0 2 0 3 0 4 0 0 0 0\n\
             259 1 nvme0n1 6 0 8 0 10 0 12 0 0 0 0\n259 2 nvme0n1p1 6 0 8 0 10 0 12 0 0 0 0\n\
             259 3 nvme1n1 1 0 1 0 1 0 1 0 0 0 0\n",
        );
        let names: Vec<String> = disks.unwrap().into_keys().collect();
        assert_eq!(names, ["nvme0c0n1", "nvme0c1n1", "nvme1n1"]);
    }

    #[test]
    fn a_host_without_disks_says_nothing_of_them() {
        for text in [
            "",
            "7 0 loop0 9 9 9 9 9 9 9 9 9 9 9\n",
            "8 0 sda 10 0 80\n",
            "8 0 sda 1 0 18446744073709551615 0 1 0 1 0 0 0 0\n",
        ] {
            assert_eq!(parse_diskstats(text), None, "{text}");
        }
    }

    #[test]
    fn loopback_counts_only_when_it_is_alone() {
        let interfaces = parse_net_dev(NET_DEV).unwrap();
        let expected = [
            ("eth0", [259_117_907, 6885, 332_159, 3680]),
            ("eth0:1", [1, 2, 3, 4]),
            ("wlp3s0", [12, 2, 34, 4]),
        ];
        assert_eq!(interfaces, expected.map(|(n, c)| (n.to_owned(), c)).into());
        let alone: String = NET_DEV.split_inclusive('\n').take(3).collect();
        let alone = parse_net_dev(&alone).unwrap();
        let lo = ("lo".to_owned(), [3193, 29, 3193, 29]);
        assert_eq!(alone, BTreeMap::from([lo]));
        assert_eq!(parse_net_dev("Inter-| Receive\n face |bytes\n"), None);
    }

    #[test]
    fn only_devices_in_both_readings_count_and_a_wrap_hides_one_sum() {
        let table = |rows: &[(&str, [u64; 4])]| -> Counters {
            rows.iter().map(|(n, c)| ((*n).to_owned(), *c)).collect()
        };
        let before = table(&[("a", [10, 10, 10, 10]), ("gone", [5, 5, 5, 5])]);
        for (after, expected) in [
            (
                table(&[("a", [11, 12, 13, 10]), ("new", [7, 7, 7, 7])]),
                Some([Some(1), Some(2), Some(3), Some(0)]),
            ),
            (
                table(&[("a", [11, 9, 13, 10]), ("gone", [6, 6, 6, 6])]),
                Some([Some(2), None, Some(4), Some(1)]),
            ),
            (table(&[("a", [u64::MAX; 4]), ("gone", [u64::MAX; 4])]), Some([None; 4])),
            (table(&[("new", [7, 7, 7, 7])]), None),
        ] {
            assert_eq!(counted(&before, &after), expected, "{after:?}");
        }
    }

    /// Real text with a piece cut out and something else put in its place.
    fn damaged() -> impl Strategy<Value = String> {
        let text = prop::sample::select(vec![STAT, MEMINFO, DISKSTATS, NET_DEV, "0.1 0.2 0.3 1/2"]);
        let bytes = prop::collection::vec(any::<u8>(), 0..40);
        let digits = "[0-9]{0,30}".prop_map(String::into_bytes);
        (text, any::<[prop::sample::Index; 2]>(), prop_oneof![bytes, digits]).prop_map(
            |(text, [one, two], inserted)| {
                let (one, two) = (one.index(text.len()), two.index(text.len()));
                let mut bytes = text.as_bytes().to_vec();
                bytes.splice(one.min(two)..one.max(two), inserted);
                String::from_utf8_lossy(&bytes).into_owned()
            },
        )
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic_or_a_share_leave_its_range(
            one in damaged(), two in damaged(),
        ) {
            for parse in [parse_diskstats, parse_net_dev] {
                if let (Some(one), Some(two)) = (parse(&one), parse(&two)) {
                    counted(&one, &two);
                }
            }
            if let (Some(one), Some(two)) = (parse_stat(&one), parse_stat(&two)) {
                let share = two.all.percent_since(one.all);
                prop_assert!(share.is_none_or(|share| (0.0..=100.0).contains(&share)));
            }
            if let Some(memory) = parse_meminfo(&one) {
                prop_assert!(memory.available <= memory.total);
            }
            if let Some(loads) = parse_loadavg(&one) {
                prop_assert!(loads.iter().all(|load| load.is_finite()));
            }
        }
    }
}
