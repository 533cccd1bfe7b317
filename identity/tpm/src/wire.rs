//! Commands and answers as bytes (TPM 2.0 Library, Part 1 §18, Part 3 §5): big-endian, every length bounded, nothing left over.

use crate::error::ResponseCode;
use zeroize::Zeroizing;

/// Largest command or answer, bytes: what the kernel's driver takes (`TPM_BUFSIZE`). Tripped by
/// `an_answer_that_lies_about_itself_is_refused`.
pub(crate) const MESSAGE_LEN_MAX: usize = 4096;
/// Tag, size and code.
pub(crate) const HEADER_LEN: usize = 10;

/// `TPM_ST_NO_SESSIONS`.
const NO_SESSIONS: u16 = 0x8001;
/// `TPM_ST_SESSIONS`.
const SESSIONS: u16 = 0x8002;
/// `TPM_RS_PW`: a password, here always the empty one, in the place of a session.
const PASSWORD: u32 = 0x4000_0009;

/// One command.
pub(crate) struct Command {
    /// By its name in Part 3.
    pub(crate) name: &'static str,
    pub(crate) code: u32,
    pub(crate) handles: Vec<u32>,
    /// Whether its first handle wants an authorisation.
    pub(crate) authorised: bool,
    pub(crate) parameters: Parameters,
    /// Whether its answer begins with a handle.
    pub(crate) gives_handle: bool,
}

impl Command {
    pub(crate) fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut rest = Parameters::default();
        for handle in &self.handles {
            rest.u32(*handle);
        }
        if self.authorised {
            // One TPMS_AUTH_COMMAND of 9 bytes: no nonce, continueSession, no HMAC.
            rest.u32(9);
            rest.u32(PASSWORD);
            rest.sized(&[]);
            rest.0.push(1);
            rest.sized(&[]);
        }
        rest.0.extend_from_slice(&self.parameters.0);
        let mut whole = Parameters::default();
        whole.u16(self.tag());
        whole.u32(length_u32(rest.0.len().saturating_add(HEADER_LEN)));
        whole.u32(self.code);
        whole.0.extend_from_slice(&rest.0);
        whole.0
    }

    fn tag(&self) -> u16 {
        if self.authorised { SESSIONS } else { NO_SESSIONS }
    }

    /// The answer to it, if these bytes are one.
    pub(crate) fn read<'a>(&self, bytes: &'a [u8]) -> Result<Answer<'a>, Wrong> {
        let mut reader = Reader(bytes);
        let (tag, size, code) = (reader.u16()?, reader.u32()?, reader.u32()?);
        if usize::try_from(size) != Ok(bytes.len()) || bytes.len() > MESSAGE_LEN_MAX {
            return Err(Wrong::Form("its length is not what it says"));
        }
        if code != 0 {
            // Also of a TPM 1.2, which has a tag of its own for it.
            if tag != NO_SESSIONS || bytes.len() != HEADER_LEN {
                return Err(Wrong::Form("it is no answer of a TPM 2.0"));
            }
            return Err(Wrong::Code(ResponseCode(code)));
        }
        if tag != self.tag() {
            return Err(Wrong::Form("its tag is another one's"));
        }
        let handle = if self.gives_handle { reader.u32()? } else { 0 };
        let parameters = if self.authorised {
            let parameters = reader.u32()?;
            let parameters = usize::try_from(parameters).map_err(|_| SHORT)?;
            let parameters = reader.take(parameters)?;
            // One TPMS_AUTH_RESPONSE of a password.
            let authorisation = (reader.sized()?, reader.take(1)?, reader.sized()?);
            if !authorisation.0.is_empty() || !authorisation.2.is_empty() {
                return Err(Wrong::Form("its authorisation is of another session"));
            }
            reader.end()?;
            parameters
        } else {
            reader.0
        };
        Ok(Answer {
            handle,
            parameters: Reader(parameters),
        })
    }
}

/// What a command that was done gives.
#[derive(Clone, Copy)]
pub(crate) struct Answer<'a> {
    /// Zero, if it gives none.
    pub(crate) handle: u32,
    pub(crate) parameters: Reader<'a>,
}

/// Why bytes are no answer, or a refusal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Wrong {
    Form(&'static str),
    Code(ResponseCode),
}

const SHORT: Wrong = Wrong::Form("it ends too early");

/// What is read from the front to the end.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], Wrong> {
        let (front, rest) = self.0.split_at_checked(length).ok_or(SHORT)?;
        self.0 = rest;
        Ok(front)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Wrong> {
        let (front, rest) = self.0.split_first_chunk().ok_or(SHORT)?;
        self.0 = rest;
        Ok(*front)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Wrong> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Wrong> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Wrong> {
        self.array().map(u64::from_be_bytes)
    }

    /// A `TPM2B`.
    pub(crate) fn sized(&mut self) -> Result<&'a [u8], Wrong> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    pub(crate) fn end(self) -> Result<(), Wrong> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(Wrong::Form("it goes on after its end"))
    }
}

/// What is written; may be a secret.
pub(crate) struct Parameters(pub(crate) Zeroizing<Vec<u8>>);

impl Default for Parameters {
    /// Room for the whole of what carries a secret: a buffer that grows leaves copies behind.
    fn default() -> Self {
        Self(Zeroizing::new(Vec::with_capacity(512)))
    }
}

impl Parameters {
    pub(crate) fn u16(&mut self, number: u16) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    pub(crate) fn u32(&mut self, number: u32) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    /// A `TPM2B`. The caller's bytes are bounded: by their type, or by a limit of a name.
    pub(crate) fn sized(&mut self, bytes: &[u8]) {
        self.u16(u16::try_from(bytes.len()).unwrap_or(u16::MAX));
        self.0.extend_from_slice(bytes);
    }
}

fn length_u32(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(authorised: bool, gives_handle: bool) -> Command {
        Command {
            name: "TPM2_Test",
            code: 0x15e,
            handles: vec![0x8000_0001],
            authorised,
            parameters: Parameters::default(),
            gives_handle,
        }
    }

    const GOOD: &[u8] = b"\x80\x02\0\0\0\x1a\0\0\0\0\x80\0\0\x05\0\0\0\x03\0\x01\xaa\0\0\x01\0\0";

    fn refused(command: &Command, answer: &[u8]) -> Wrong {
        match command.read(answer) {
            Err(wrong) => wrong,
            Ok(_) => panic!("{answer:02x?} was read"),
        }
    }

    #[test]
    fn a_command_is_written_as_the_library_says() {
        let bytes = command(true, false).encode();
        assert_eq!(
            **bytes,
            *b"\x80\x02\0\0\0\x1b\0\0\x01\x5e\x80\0\0\x01\0\0\0\x09\x40\0\0\x09\0\0\x01\0\0"
        );
        let bytes = command(false, false).encode();
        assert_eq!(**bytes, *b"\x80\x01\0\0\0\x0e\0\0\x01\x5e\x80\0\0\x01");
    }

    #[test]
    fn an_answer_is_read_to_its_end() {
        let command = command(true, true);
        let mut answer = command.read(GOOD).ok().unwrap();
        assert_eq!(answer.handle, 0x8000_0005);
        assert_eq!(answer.parameters.sized(), Ok(&[0xaa][..]));
        assert_eq!(answer.parameters.end(), Ok(()));
    }

    #[test]
    fn an_answer_that_lies_about_itself_is_refused() {
        let command = command(true, true);
        for length in 0..GOOD.len() {
            let form = matches!(refused(&command, &GOOD[..length]), Wrong::Form(_));
            assert!(form, "{length}");
        }
        // The same with a size that fits what is there.
        for length in HEADER_LEN..GOOD.len() {
            let mut cut = GOOD[..length].to_vec();
            cut[5] = u8::try_from(length).unwrap();
            assert_eq!(refused(&command, &cut), SHORT, "{length}");
        }
        let mut longer = [GOOD, &[0]].concat();
        assert_eq!(
            refused(&command, &longer),
            Wrong::Form("its length is not what it says")
        );
        longer[5] += 1;
        assert_eq!(
            refused(&command, &longer),
            Wrong::Form("it goes on after its end")
        );
        let mut other = GOOD.to_vec();
        other[1] = 1;
        assert_eq!(refused(&command, &other), Wrong::Form("its tag is another one's"));
        let mut session = [GOOD, &[0xbb]].concat();
        session[5] += 1;
        session[25] = 1;
        assert_eq!(
            refused(&command, &session),
            Wrong::Form("its authorisation is of another session")
        );
        let mut huge = vec![0; MESSAGE_LEN_MAX + 1];
        huge[..10].copy_from_slice(b"\x80\x01\0\0\x10\x01\0\0\0\0");
        let plain = self::command(false, false);
        assert_eq!(
            refused(&plain, &huge),
            Wrong::Form("its length is not what it says")
        );
        huge[5] = 0;
        assert!(plain.read(&huge[..MESSAGE_LEN_MAX]).is_ok());
    }

    #[test]
    fn a_refusal_is_a_header_and_no_more() {
        let command = command(true, true);
        let busy = b"\x80\x01\0\0\0\x0a\0\0\x09\x22";
        assert_eq!(refused(&command, busy), Wrong::Code(ResponseCode::RETRY));
        let old = Wrong::Form("it is no answer of a TPM 2.0");
        assert_eq!(refused(&command, b"\x00\xc4\0\0\0\x0a\0\0\0\x1e"), old);
        assert_eq!(refused(&command, b"\x80\x01\0\0\0\x0b\0\0\x09\x22\0"), old);
    }
}
