//! A replay of real daily prices, faster than they happened.
//! Owns the price file and the place in it.
//! # Invariants: every price shown is one of the four published for that symbol and day;
//! the place depends on the clock alone, so a late caller skips instead of bursting.
//! # Not here: where the prices come from and what was done to them (`data/README.md`).

use super::{draft, rounded};
use crate::clock::Now;
use crate::topics::message::Draft;
use crate::topics::name::TopicName;
use serde::Serialize;
use std::time::Duration;

/// Time between two updates, over all symbols. With five symbols each of them moves every 300 ms,
/// a trading day takes 1.2 s, and there are 16 to 17 updates a second.
pub const TICK: Duration = Duration::from_millis(TICK_MS);
const TICK_MS: u64 = 60;

/// Prices that are shown of one day.
const POINTS: usize = 4;

const PRICES: &str = include_str!("data/stocks.csv");

/// The replay: symbols take turns, each walks through its days, and after the last comes the first.
#[derive(Debug)]
pub struct Replay {
    series: Vec<Series>,
    /// Uptime of tick 0, which is the first call of [`Replay::due`].
    start: Option<Duration>,
    /// The first tick that has not been given.
    next: usize,
}

impl Replay {
    /// A replay of the prices that are built in. It begins with the first call of [`Replay::due`].
    pub fn new() -> Replay {
        Replay { series: parse(PRICES), start: None, next: 0 }
    }

    /// The updates that are due: at most the latest one of each symbol.
    pub fn due(&mut self, now: Now) -> Vec<Draft> {
        let start = *self.start.get_or_insert(now.uptime);
        let elapsed = now.uptime.saturating_sub(start);
        let ticks = usize::try_from(elapsed.as_millis() / TICK.as_millis()).unwrap_or(usize::MAX);
        let end = ticks.saturating_add(1);
        let begin = self.next.max(end.saturating_sub(self.series.len()));
        self.next = self.next.max(end);
        (begin..end).filter_map(|tick| self.draft(tick)).collect()
    }

    /// Uptime at which the next update is due.
    pub fn next_due(&self) -> Duration {
        let Some(start) = self.start else {
            return Duration::ZERO;
        };
        let ticks = u64::try_from(self.next).unwrap_or(u64::MAX);
        start.saturating_add(Duration::from_millis(ticks.saturating_mul(TICK_MS)))
    }

    fn draft(&self, tick: usize) -> Option<Draft> {
        let symbols = self.series.len();
        let series = self.series.get(tick.checked_rem(symbols)?)?;
        let step = tick.checked_div(symbols)?;
        series.draft(step / POINTS, step % POINTS)
    }
}

impl Default for Replay {
    fn default() -> Replay {
        Replay::new()
    }
}

/// The days of one symbol, oldest first.
#[derive(Debug)]
struct Series {
    topic: TopicName,
    symbol: &'static str,
    /// The first day is never shown: it is the day before of the second.
    days: Vec<Day>,
}

impl Series {
    fn draft(&self, day: usize, point: usize) -> Option<Draft> {
        let (first, shown) = self.days.split_first()?;
        let place = day.checked_rem(shown.len())?;
        let today = shown.get(place)?;
        let yesterday = place.checked_sub(1).and_then(|place| shown.get(place)).unwrap_or(first);
        let price = *today.points().get(point)?;
        let change = price - yesterday.close;
        let quote = Quote {
            symbol: self.symbol,
            date: today.date,
            price,
            open: today.open,
            // Prices have up to four decimals, and so has their difference.
            change: rounded(change, 10_000.0),
            change_percent: rounded(100.0 * change / yesterday.close, 100.0),
            volume: today.volume,
        };
        draft(&self.topic, Some(self.symbol), &quote)
    }
}

/// One trading day of one symbol, in dollars and shares.
#[derive(Debug)]
struct Day {
    date: &'static str,
    open: f64,
    high: f64,
    low: f64,
    close: f64,
    volume: u64,
}

impl Day {
    /// The four prices in a likely order: the shorter way from open to close visits the low first
    /// on a day that rose and the high first on a day that fell.
    fn points(&self) -> [f64; POINTS] {
        if self.close >= self.open {
            [self.open, self.low, self.high, self.close]
        } else {
            [self.open, self.high, self.low, self.close]
        }
    }
}

/// What a message on `ticker.*` says.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Quote {
    symbol: &'static str,
    date: &'static str,
    price: f64,
    open: f64,
    change: f64,
    change_percent: f64,
    volume: u64,
}

/// Reads rows that are sorted by symbol and date. A row that is not well-formed is left out; the
/// file is built in, and a test makes sure that it has none.
fn parse(text: &'static str) -> Vec<Series> {
    let mut all: Vec<Series> = Vec::new();
    for (symbol, day) in text.lines().skip(1).filter_map(parse_row) {
        match all.last_mut() {
            Some(series) if series.symbol == symbol => series.days.push(day),
            _ => {
                let Ok(topic) = TopicName::parse(&format!("ticker.{symbol}")) else {
                    continue;
                };
                all.push(Series { topic, symbol, days: vec![day] });
            }
        }
    }
    all
}

fn parse_row(row: &'static str) -> Option<(&'static str, Day)> {
    let mut cells = row.split(',');
    let symbol = cells.next()?;
    let day = Day {
        date: cells.next()?,
        open: price(cells.next()?)?,
        high: price(cells.next()?)?,
        low: price(cells.next()?)?,
        close: price(cells.next()?)?,
        volume: cells.next()?.parse().ok()?,
    };
    cells.next().is_none().then_some((symbol, day))
}

fn price(text: &str) -> Option<f64> {
    let price: f64 = text.parse().ok()?;
    (price.is_finite() && price > 0.0).then_some(price)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::collections::{BTreeMap, BTreeSet};

    const SYMBOLS: [&str; 5] = ["AAPL", "FB", "GOOG", "IBM", "MSFT"];

    /// The rows of the file as text, read without the parser under test.
    fn rows() -> Vec<Vec<&'static str>> {
        PRICES.lines().skip(1).map(|row| row.split(',').collect()).collect()
    }

    /// Milliseconds of one round of the file, for all symbols.
    fn round_ms(replay: &Replay) -> u64 {
        let shown = replay.series[0].days.len() - 1;
        (shown * POINTS * replay.series.len()) as u64 * TICK_MS
    }

    /// Everything between two times, polled when it is due, as (milliseconds, quote).
    fn play(replay: &mut Replay, from_ms: u64, to_ms: u64) -> Vec<(u64, Value)> {
        let mut quotes = Vec::new();
        for ms in (from_ms..to_ms).step_by(usize::try_from(TICK_MS).unwrap()) {
            for draft in replay.due(Now::at_ms(ms)) {
                let quote: Value = serde_json::from_slice(draft.payload.bytes()).unwrap();
                let symbol = quote["symbol"].as_str().unwrap();
                assert_eq!(draft.topic.as_str(), format!("ticker.{symbol}"));
                assert_eq!(draft.key.as_deref(), Some(symbol));
                quotes.push((ms, quote));
            }
        }
        quotes
    }

    fn of<'q>(quotes: &'q [(u64, Value)], symbol: &str) -> Vec<&'q (u64, Value)> {
        quotes.iter().filter(|(_, quote)| quote["symbol"] == symbol).collect()
    }

    #[test]
    fn the_price_file_is_sorted_whole_and_positive() {
        let rows = rows();
        let places: Vec<_> = rows.iter().map(|row| (row[0], row[1])).collect();
        assert!(places.is_sorted_by(|a, b| a < b), "sorted, no duplicates");
        for row in &rows {
            let number = |cell: usize| row[cell].parse::<f64>().unwrap();
            let (open, high, low, close) = (number(2), number(3), number(4), number(5));
            assert!(low > 0.0 && low <= open.min(close), "{row:?}");
            assert!(high >= open.max(close), "{row:?}");
            assert!(number(6) > 0.0, "{row:?}");
            assert_eq!(row.len(), 7, "{row:?}");
            assert_eq!(row[1].len(), "2012-05-18".len(), "{row:?}");
        }
        assert!(PRICES.len() < 400_000);
    }

    #[test]
    fn every_row_is_read_and_every_symbol_has_the_same_days() {
        let series = parse(PRICES);
        assert_eq!(series.iter().map(|s| s.symbol).collect::<Vec<_>>(), SYMBOLS);
        let read: usize = series.iter().map(|s| s.days.len()).sum();
        assert_eq!(read, rows().len());
        let dates =
            |series: &Series| -> Vec<_> { series.days.iter().map(|day| day.date).collect() };
        assert!(series.iter().all(|s| dates(s) == dates(&series[0])));
    }

    #[test]
    fn a_round_shows_every_published_price_and_no_other() {
        let mut replay = Replay::new();
        let end = round_ms(&replay);
        let mut shown: BTreeMap<(String, String), Vec<f64>> = BTreeMap::new();
        for (_, quote) in play(&mut replay, 0, end) {
            let text = |name: &str| quote[name].as_str().unwrap().to_owned();
            let prices = shown.entry((text("symbol"), text("date"))).or_default();
            prices.push(quote["price"].as_f64().unwrap());
        }
        let first_date = rows()[0][1];
        let mut published = BTreeMap::new();
        for row in rows().into_iter().filter(|row| row[1] != first_date) {
            let mut prices: Vec<f64> = (2..6).map(|cell| row[cell].parse().unwrap()).collect();
            prices.sort_by(f64::total_cmp);
            published.insert((row[0].to_owned(), row[1].to_owned()), prices);
        }
        for prices in shown.values_mut() {
            prices.sort_by(f64::total_cmp);
        }
        assert_eq!(shown, published);
    }

    #[test]
    fn a_quote_compares_with_the_close_of_the_day_before() {
        let mut replay = Replay::new();
        let quotes = play(&mut replay, 0, 3_000);
        // AAPL closed at 530.38 on 2012-05-18 and at 561.28 on 2012-05-21.
        let aapl = of(&quotes, "AAPL");
        let expected = [
            r#"{"symbol":"AAPL","date":"2012-05-21","price":534.5,"open":534.5,"change":4.12,"changePercent":0.78,"volume":22539500}"#,
            r#"{"symbol":"AAPL","date":"2012-05-21","price":534.05,"open":534.5,"change":3.67,"changePercent":0.69,"volume":22539500}"#,
            r#"{"symbol":"AAPL","date":"2012-05-21","price":561.54,"open":534.5,"change":31.16,"changePercent":5.88,"volume":22539500}"#,
            r#"{"symbol":"AAPL","date":"2012-05-21","price":561.28,"open":534.5,"change":30.9,"changePercent":5.83,"volume":22539500}"#,
        ];
        for (quote, json) in aapl.iter().zip(expected) {
            assert_eq!(quote.1, serde_json::from_str::<Value>(json).unwrap());
        }
        assert_eq!(aapl[4].1["date"], "2012-05-22");
        let change = aapl[4].1["price"].as_f64().unwrap() - 561.28;
        assert!((aapl[4].1["change"].as_f64().unwrap() - change).abs() < 1e-9);
    }

    #[test]
    fn the_high_comes_first_on_a_day_that_fell() {
        let day =
            |open, close| Day { date: "2012-05-21", open, high: 9.0, low: 1.0, close, volume: 1 };
        for (open, close, expected) in [
            (4.0, 5.0, [4.0, 1.0, 9.0, 5.0]),
            (5.0, 4.0, [5.0, 9.0, 1.0, 4.0]),
            (5.0, 5.0, [5.0, 1.0, 9.0, 5.0]),
        ] {
            let shown = day(open, close).points();
            assert!(shown.iter().zip(expected).all(|(a, b)| a.total_cmp(&b).is_eq()), "{shown:?}");
        }
    }

    #[test]
    fn every_symbol_moves_within_any_two_seconds_and_all_make_ten_updates_a_second() {
        let mut replay = Replay::new();
        let end = round_ms(&replay);
        let quotes = play(&mut replay, 0, end);
        assert!(quotes.len() as u64 * 1000 >= end * 10);
        for symbol in SYMBOLS {
            let mine = of(&quotes, symbol);
            for (index, (from, _)) in mine.iter().enumerate() {
                let window = mine[index..].iter().take_while(|(ms, _)| ms - from < 2_000);
                let prices: BTreeSet<_> = window.map(|(_, q)| q["price"].to_string()).collect();
                assert!(prices.len() > 1 || from + 2_000 > end, "{symbol} at {from} ms");
            }
        }
    }

    #[test]
    fn dates_rise_to_the_last_and_then_begin_again() {
        let mut replay = Replay::new();
        let round = round_ms(&replay);
        let quotes = play(&mut replay, 0, 2 * round);
        for symbol in SYMBOLS {
            let mine = of(&quotes, symbol);
            let (one, two) = mine.split_at(mine.len() / 2);
            assert!(one.is_sorted_by_key(|(_, quote)| quote["date"].as_str()));
            assert_eq!(one[0].1["date"], "2012-05-21");
            assert_eq!(one[one.len() - 1].1["date"], "2013-03-01");
            assert!(one.iter().zip(two).all(|(a, b)| a.1 == b.1));
        }
    }

    #[test]
    fn a_late_caller_gets_what_a_punctual_one_got_last() {
        let mut late = Replay::new();
        let mut punctual = Replay::new();
        assert_eq!(late.due(Now::at_ms(0)), punctual.due(Now::at_ms(0)));
        let mut latest = BTreeMap::new();
        for ms in 1..=77_777 {
            for draft in punctual.due(Now::at_ms(ms)) {
                latest.insert(draft.topic.clone(), draft);
            }
        }
        let given: BTreeMap<_, _> = late
            .due(Now::at_ms(77_777))
            .into_iter()
            .map(|draft| (draft.topic.clone(), draft))
            .collect();
        assert_eq!(given.len(), SYMBOLS.len());
        assert_eq!(given, latest);
        assert_eq!(late.next_due(), punctual.next_due());
    }

    #[test]
    fn the_next_update_is_due_one_tick_after_the_last() {
        let mut replay = Replay::new();
        assert_eq!(replay.next_due(), Duration::ZERO);
        assert_eq!(replay.due(Now::at_ms(5_000)).len(), 1);
        assert_eq!(replay.next_due(), Duration::from_millis(5_060));
        assert!(replay.due(Now::at_ms(5_059)).is_empty());
        assert_eq!(replay.due(Now::at_ms(5_060)).len(), 1);
    }

    #[test]
    fn a_clock_at_its_end_or_going_back_does_no_harm() {
        let mut replay = Replay::new();
        replay.due(Now::at_ms(1_000));
        assert!(replay.due(Now::at_ms(0)).is_empty());
        assert!(replay.due(Now::at_ms(u64::MAX)).len() <= SYMBOLS.len());
        assert!(replay.next_due() > Duration::ZERO);
        replay.due(Now::at_ms(2_000));
    }

    #[test]
    fn rows_that_are_not_well_formed_are_left_out() {
        let series = parse(
            "symbol,date,open,high,low,close,volume\n\
             A,2012-01-01,1,1,1,1,1\nA,2012-01-02,0,1,1,1,1\nA,2012-01-03,1,1,1,inf,1\n\
             A,2012-01-04,1,1,1,1,-1\nA,2012-01-05,1,1,1,1\nA,2012-01-06,1,1,1,1,1,1\n\
             no name,2012-01-01,1,1,1,1,1\n\nA,2012-01-07,1,1,1,1,1\n",
        );
        assert_eq!(series.len(), 1);
        assert_eq!(series[0].days.len(), 2);
    }
}
