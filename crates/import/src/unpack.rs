//! A stream unpacked: members of gzip or frames of zstd, one behind the other as `cat` joins them, with
//! the zero bytes between and behind them that tapes and archives pad with.
//!
//! An error says at which byte of the packed and of the unpacked stream. After an error nothing more
//! is read.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::GzDecoder;
use zstd::stream::read::Decoder;

use crate::format::Packing;

const READ_BYTES: usize = 64 << 10;

type Packed = Counted<BufReader<Box<dyn Read>>>;

/// The unpacked bytes of a stream that is packed.
pub struct Members {
    packing: Packing,
    member: Member,
    unpacked: u64,
}

enum Member {
    /// In front of a member, or behind the last one.
    Outside(Packed),
    Gzip(Box<GzDecoder<Packed>>),
    Zstd(Decoder<'static, Packed>),
    Ended,
}

impl Members {
    pub fn new(stream: Box<dyn Read>, packing: Packing) -> Self {
        let reader = BufReader::with_capacity(READ_BYTES, stream);
        Self {
            packing,
            member: Member::Outside(Counted { reader, at: 0 }),
            unpacked: 0,
        }
    }

    /// Goes on to the next member, if there is one.
    fn begin(&mut self, mut packed: Packed) -> io::Result<Member> {
        let is_first = packed.at == 0;
        let first = match packed.skip_zeros() {
            Ok(first) => first,
            Err(error) => {
                self.member = Member::Outside(packed);
                return Err(error);
            }
        };
        match (first, self.packing) {
            (None, _) => Ok(Member::Ended),
            (Some(first), packing) if !is_first && !packing.may_begin_with(first) => {
                let foreign = ForeignBytes {
                    packing,
                    at: packed.at,
                };
                Err(io::Error::new(io::ErrorKind::InvalidData, foreign))
            }
            (_, Packing::Zstd) => {
                let at = packed.at;
                let frame = Decoder::with_buffer(packed);
                let frame = frame.map_err(|source| self.damaged(at, source))?;
                Ok(Member::Zstd(frame.single_frame()))
            }
            (_, Packing::Gzip | Packing::Plain) => {
                Ok(Member::Gzip(Box::new(GzDecoder::new(packed))))
            }
        }
    }

    fn damaged(&self, packed_at: u64, source: io::Error) -> io::Error {
        let damaged = Damaged {
            packing: self.packing,
            packed_at,
            unpacked: self.unpacked,
            source,
        };
        io::Error::new(damaged.source.kind(), damaged)
    }
}

impl Read for Members {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let (read, at) = match &mut self.member {
                Member::Gzip(member) => (member.read(into), member.get_ref().at),
                Member::Zstd(frame) => (frame.read(into), frame.get_ref().at),
                Member::Outside(_) => (Ok(0), 0),
                Member::Ended => return Ok(0),
            };
            match read {
                Ok(0) if into.is_empty() => return Ok(0),
                Ok(0) => {}
                Ok(read) => {
                    self.unpacked += read as u64;
                    return Ok(read);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
                Err(source) => return Err(self.damaged(at, source)),
            }
            let packed = match std::mem::replace(&mut self.member, Member::Ended) {
                Member::Outside(packed) => packed,
                Member::Gzip(member) => member.into_inner(),
                Member::Zstd(frame) => frame.finish(),
                Member::Ended => return Ok(0),
            };
            self.member = self.begin(packed)?;
        }
    }
}

/// A reader that knows how many of its bytes were used.
struct Counted<R> {
    reader: R,
    at: u64,
}

impl<R: BufRead> Counted<R> {
    /// The first byte that is not zero, not used.
    fn skip_zeros(&mut self) -> io::Result<Option<u8>> {
        loop {
            let bytes = self.fill_buf()?;
            if bytes.is_empty() {
                return Ok(None);
            }
            let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
            let found = bytes.get(zeros).copied();
            self.consume(zeros);
            if found.is_some() {
                return Ok(found);
            }
        }
    }
}

impl<R: BufRead> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(into)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.reader.fill_buf()
    }

    fn consume(&mut self, bytes: usize) {
        self.reader.consume(bytes);
        self.at += bytes as u64;
    }
}

#[derive(Debug, thiserror::Error)]
#[error(
    "its {} data is cut off or damaged at byte {packed_at} of the packed stream, behind {unpacked} unpacked bytes ({source}), and what was read of it before may be damaged as well. Once the file is whole, import it with --again, which writes all of it: a keyed table gets the same values again, a stream table gets its records twice",
    packing.name()
)]
struct Damaged {
    packing: Packing,
    packed_at: u64,
    unpacked: u64,
    source: io::Error,
}

#[derive(Debug, thiserror::Error)]
#[error(
    "what is at byte {at} of the packed stream, behind whole {name} data, is neither {name} nor zero bytes: cut the file there (head -c {at}) if it is to be left out, or see where it comes from",
    name = packing.name()
)]
struct ForeignBytes {
    packing: Packing,
    at: u64,
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    /// Gives few bytes at a time, as a pipe may.
    struct Drops(Cursor<Vec<u8>>, usize);

    impl Read for Drops {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let bytes = self.1.min(into.len());
            self.0.read(&mut into[..bytes])
        }
    }

    fn pack(text: &str, packing: Packing) -> Vec<u8> {
        match packing {
            Packing::Zstd => zstd::encode_all(text.as_bytes(), 1).unwrap(),
            Packing::Gzip | Packing::Plain => {
                let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
                packed.write_all(text.as_bytes()).unwrap();
                packed.finish().unwrap()
            }
        }
    }

    fn unpack(bytes: &[u8], packing: Packing, drop: usize) -> Result<String, String> {
        let stream = Box::new(Drops(Cursor::new(bytes.to_vec()), drop));
        let mut text = String::new();
        let read = Members::new(stream, packing).read_to_string(&mut text);
        read.map(|_| text).map_err(|error| error.to_string())
    }

    #[test]
    fn members_and_padding_are_one_text_however_they_arrive() {
        for packing in [Packing::Gzip, Packing::Zstd] {
            let (a, b, none) = (
                pack("a\n", packing),
                pack("b\n", packing),
                pack("", packing),
            );
            for zeros in [0, 1, 512, 100_000] {
                let padding = vec![0; zeros];
                let bytes = [&a[..], &none, &padding, &b, &padding].concat();
                for drop in [1, 3, 100_000] {
                    let text = unpack(&bytes, packing, drop);
                    assert_eq!(text.as_deref(), Ok("a\nb\n"), "{packing:?} {zeros} {drop}");
                }
            }
        }
        // Some packers write frames that only a packer reads.
        let skipped = [0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 7, 7];
        let bytes = [&skipped[..], &pack("a", Packing::Zstd), &skipped].concat();
        assert_eq!(Packing::of_head(&bytes), Packing::Zstd);
        assert_eq!(unpack(&bytes, Packing::Zstd, 1).as_deref(), Ok("a"));
    }

    #[test]
    fn a_stream_that_is_cut_off_says_at_which_byte_wherever_it_is_cut() {
        for packing in [Packing::Gzip, Packing::Zstd] {
            let (first, second) = (pack("first\n", packing), pack("second\n", packing));
            let whole = [&first[..], &second].concat();
            for end in 4..whole.len() {
                let text = unpack(&whole[..end], packing, 7);
                if end == first.len() {
                    assert_eq!(text.as_deref(), Ok("first\n"), "{packing:?}");
                    continue;
                }
                let said = text.unwrap_err();
                let place = format!("damaged at byte {end} of the packed stream");
                assert!(said.contains(&place), "{packing:?} {end}: {said}");
            }
        }
    }

    #[test]
    fn other_bytes_behind_the_last_member_are_named_with_their_place() {
        for packing in [Packing::Gzip, Packing::Zstd] {
            let member = pack("a\n", packing);
            let bytes = [&member[..], &[0; 5], b"{\"id\":1}"].concat();
            let said = unpack(&bytes, packing, 2).unwrap_err();
            let at = member.len() + 5;
            assert!(said.contains(&format!("at byte {at} of")), "{said}");
            assert!(said.contains(&format!("head -c {at}")), "{said}");
        }
    }
}
