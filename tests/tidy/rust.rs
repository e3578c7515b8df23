//! Just enough of Rust's lexis to tell code from comments and strings.
//! # Invariants: all views have the lines of the text, so a finding's line is the file's line.
//! # Not here: syntax. Rules look at flat tokens; clippy does what needs more.

/// A text, taken apart.
pub(crate) struct Source {
    /// The code, without string and character literals.
    pub(crate) code: String,
    /// The comments.
    pub(crate) comments: String,
    /// Both, and nothing in place of the literals: here columns differ from the text's.
    pub(crate) shortened: String,
}

/// A word, `::`, or one other character of code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) text: String,
    /// From 1.
    pub(crate) line: usize,
}

impl Token {
    /// Whether it is a name, a keyword or a number.
    pub(crate) fn is_word(&self) -> bool {
        self.text.starts_with(is_word_part)
    }
}

/// What a character belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Code,
    Comment,
    Literal,
}

impl Source {
    /// Takes a text apart.
    pub(crate) fn of(text: &str) -> Source {
        let chars: Vec<char> = text.chars().collect();
        let mut source =
            Source { code: String::new(), comments: String::new(), shortened: String::new() };
        let mut at = 0;
        while at < chars.len() {
            let (kind, len) = piece(&chars, at);
            let end = (at + len.max(1)).min(chars.len());
            for &c in chars.get(at..end).unwrap_or_default() {
                let blank = if c == '\n' { '\n' } else { ' ' };
                if kind != Kind::Literal || c == '\n' {
                    source.shortened.push(c);
                }
                source.code.push(if kind == Kind::Code { c } else { blank });
                source.comments.push(if kind == Kind::Comment { c } else { blank });
            }
            at = end;
        }
        source
    }
}

/// The tokens of a text's code.
pub(crate) fn tokens(text: &str) -> Vec<Token> {
    let mut tokens: Vec<Token> = Vec::new();
    for (index, line) in Source::of(text).code.lines().enumerate() {
        let mut glue = false;
        for c in line.chars() {
            match tokens.last_mut() {
                Some(last) if glue && is_word_part(c) && last.is_word() => last.text.push(c),
                Some(last) if glue && c == ':' && last.text == ":" => last.text.push(c),
                _ if c.is_whitespace() => {}
                _ => tokens.push(Token { text: c.into(), line: index + 1 }),
            }
            glue = !c.is_whitespace();
        }
    }
    tokens
}

/// The index of the token that closes the brace opened at `open`.
pub(crate) fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0_usize;
    for (index, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "{" => depth += 1,
            "}" if depth == 1 => return index,
            "}" => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    tokens.len()
}

fn is_word_part(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// What begins at `at`, and how many characters belong to it.
fn piece(chars: &[char], at: usize) -> (Kind, usize) {
    let char_at = |index: usize| chars.get(index).copied().unwrap_or('\0');
    let joined = at > 0 && is_word_part(char_at(at - 1));
    match (char_at(at), char_at(at + 1)) {
        ('/', '/') => (Kind::Comment, run(chars, at, |c| c != '\n')),
        ('/', '*') => (Kind::Comment, block_comment(chars, at)),
        ('"', _) => (Kind::Literal, string(chars, at)),
        ('r', '"' | '#') if !joined || matches!(char_at(at - 1), 'b' | 'c') => {
            raw_string(chars, at)
        }
        ('\'', '\\') => (Kind::Literal, 3 + run(chars, at + 3, |c| c != '\'') + 1),
        ('\'', _) if char_at(at + 2) == '\'' => (Kind::Literal, 3),
        _ => (Kind::Code, 1),
    }
}

/// How many characters from `at` on are like this.
fn run(chars: &[char], at: usize, like: impl Fn(char) -> bool) -> usize {
    chars.iter().skip(at).take_while(|&&c| like(c)).count()
}

fn block_comment(chars: &[char], at: usize) -> usize {
    let (mut depth, mut index) = (0_usize, at);
    while index < chars.len() {
        match (chars.get(index), chars.get(index + 1)) {
            (Some('/'), Some('*')) => (depth, index) = (depth + 1, index + 2),
            (Some('*'), Some('/')) => (depth, index) = (depth.saturating_sub(1), index + 2),
            _ => index += 1,
        }
        if depth == 0 {
            break;
        }
    }
    index - at
}

fn string(chars: &[char], at: usize) -> usize {
    let mut index = at + 1;
    while let Some(c) = chars.get(index) {
        match c {
            '\\' => index += 2,
            '"' => return index + 1 - at,
            _ => index += 1,
        }
    }
    index - at
}

/// `r"…"` with any number of `#`; `r#name` is code.
fn raw_string(chars: &[char], at: usize) -> (Kind, usize) {
    let hashes = run(chars, at + 1, |c| c == '#');
    let open = at + 1 + hashes;
    if chars.get(open) != Some(&'"') {
        return (Kind::Code, 1);
    }
    let closes = |&quote: &usize| {
        chars.get(quote) == Some(&'"') && run(chars, quote + 1, |c| c == '#') >= hashes
    };
    let end = (open + 1..chars.len()).find(closes).unwrap_or(chars.len());
    (Kind::Literal, end + 1 + hashes - at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_words(text: &str, expected: &[&str]) {
        let words: Vec<String> =
            tokens(text).into_iter().filter(Token::is_word).map(|token| token.text).collect();
        assert_eq!(words, expected, "in {text}");
    }

    #[test]
    fn literals_and_comments_are_not_code() {
        check_words("a // b\nc", &["a", "c"]);
        check_words("a /* b /* c */ d */ e", &["a", "e"]);
        check_words(r#"a "b \" c" d"#, &["a", "d"]);
        check_words(r##"a r#"b " c"# d"##, &["a", "d"]);
        check_words(r#"a br"b \" d"#, &["a", "b", "d"]);
        check_words(r"a 'b' c", &["a", "c"]);
        check_words(r"a '\'' b '\u{1F600}' c", &["a", "b", "c"]);
        check_words("a \"// b\" c", &["a", "c"]);
        check_words("a '\"' b '\"' c", &["a", "b", "c"]);
        check_words("\"never closed", &[]);
    }

    #[test]
    fn lifetimes_and_raw_names_are_code() {
        check_words("fn f<'a>(x: &'a str)", &["fn", "f", "a", "x", "a", "str"]);
        check_words("r#type for_r", &["r", "type", "for_r"]);
    }

    #[test]
    fn every_view_keeps_the_lines() {
        let source = Source::of("let a = 1; // one\n/* two\nthree */ b");
        assert_eq!(source.code, "let a = 1;       \n      \n         b");
        assert_eq!(source.comments, "           // one\n/* two\nthree */  ");
        assert_eq!(Source::of("a \"b\nc\" // d").shortened, "a \n // d");
    }

    #[test]
    fn a_token_knows_its_line() {
        let token = |text: &str, line| Token { text: text.into(), line };
        let expected = [token("a", 1), token("::", 1), token("b", 2), token(":", 2), token("c", 2)];
        assert_eq!(tokens("a::\nb: c"), expected);
    }

    #[test]
    fn a_brace_is_closed_by_its_own() {
        let tokens = tokens("a { b { c } d } e { f");
        assert_eq!(tokens.get(closing(&tokens, 1)).map(|token| token.line), Some(1));
        assert_eq!(closing(&tokens, 1), 7);
        assert_eq!(closing(&tokens, 9), tokens.len());
    }
}
