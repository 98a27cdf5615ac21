//! The reader against the one of the crate `plist`, and against what no reader may do.

use std::io::Cursor;

use super::*;

fn xml(body: &str) -> List {
    read(format!("<?xml version=\"1.0\"?>\n<plist version=\"1.0\">\n{body}\n</plist>\n").as_bytes())
}

fn trouble(body: &str) -> String {
    let list = xml(body);
    let said: Vec<String> = list.troubles.iter().map(|t| format!("{:?} {}", t.line, t.message)).collect();
    said.join("; ")
}

/// What neither reader of ours keeps.
fn without_content(value: Value) -> Value {
    match value {
        Value::Data(_) => Value::Data(Vec::new()),
        Value::Date(_) => Value::Date(std::time::SystemTime::UNIX_EPOCH.into()),
        Value::Array(all) => Value::Array(all.into_iter().map(without_content).collect()),
        Value::Dictionary(all) => {
            Value::Dictionary(all.into_iter().map(|(key, value)| (key, without_content(value))).collect())
        }
        other => other,
    }
}

const ALL_KINDS: &str = "<!-- <dict> --><dict>
    <key>text</key><string> a &amp; b &lt;c&gt; &#65;&#x42; ü \u{1f600} </string>
    <key>empty</key><string/>
    <key>numbers</key><array><integer>-7</integer><integer>0x1F</integer><integer>18446744073709551615</integer>
      <integer>-9223372036854775808</integer><real>1.5</real><integer>70000</integer><integer>300</integer></array>
    <key>yes</key><true/><key>no</key><false></false>
    <key>when</key><date>2026-11-24T20:34:05Z</date>
    <key>data</key><data> AAAA\n BBBB </data>
    <key>none</key><dict/><key>nothing</key><array/>
    <key>deep</key><array><dict><key>a</key><array><string>x</string></array></dict></array>
    <key>many</key><array><true/><true/><true/><true/><true/><true/><true/><true/><true/><true/><true/><true/>
      <true/><true/><true/><true/><true/></array>
    <key>long</key><string>0123456789012345678901234567890123456789</string>
  </dict>";

#[test]
fn both_forms_are_read_as_the_crate_reads_them() {
    let text = format!("<plist version=\"1.0\">{ALL_KINDS}</plist>");
    let theirs = Value::from_reader(Cursor::new(text.as_bytes())).expect("sound");
    let mut binary = Vec::new();
    theirs.to_writer_binary(&mut binary).expect("written");
    let ours = read(text.as_bytes());
    assert_eq!(ours.troubles, []);
    assert_eq!(ours.value.map(without_content), Some(without_content(theirs.clone())));
    let ours = read(&binary);
    assert_eq!(ours.troubles, []);
    assert_eq!(ours.value.map(without_content), Some(without_content(theirs)));
}

#[test]
fn each_key_has_its_line_and_its_path() {
    let list = xml("<dict>\n<key>KeepAlive</key>\n<dict><key>Crashed</key>\n<true/></dict>\n<key>All</key><array>\n\
         <dict>\n<key>Hour</key><integer>1</integer></dict>\n<dict>\n<key>Hour</key><integer>2</integer></dict></array></dict>");
    for (path, line) in [("KeepAlive", 4), ("KeepAlive.Crashed", 5), ("All", 7), ("All.0.Hour", 9), ("All.1.Hour", 11)]
    {
        assert_eq!(list.lines.get(path), Some(&line), "{path}");
    }
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    for (body, expected) in [
        ("<dict><key>a</key></dict>", "the key a without a value"),
        ("<dict><key>a</key><key>b</key><true/></dict>", "the key a without a value"),
        ("<dict><true/></dict>", "a value without a <key>"),
        ("<array><key>a</key></array>", "the key a outside a <dict>"),
        ("<array>\n<dict></array></dict>", "Some(4) has </array>, where the <dict> of line 4"),
        ("<dict>", "has </plist>, where the <dict> of line 3"),
        ("</dict>", "has </dict>, and nothing is open"),
        ("<true/><true/>", "more than one value"),
        ("", "holds no value"),
        ("<dict>x</dict>", "has \"x\" between its elements"),
        ("<integer>1.5</integer>", "has \"1.5\" as <integer>"),
        ("<integer>--1</integer>", "has \"--1\" as <integer>"),
        ("<date>today</date>", "has \"today\" as <date>"),
        ("<number>1</number>", "has <number>"),
        ("<string>a <b> c</string>", "has <b> within <string>"),
        ("<string>a", "has </plist> within the <string> of line 3"),
        ("<string>\na & b</string>", "Some(4) \"&\" is no entity"),
        ("<string>a &nbsp; b</string>", "\"&nbsp;\" is no entity"),
        ("<!-- <true/>", "a comment that is not closed"),
        ("<![CDATA[", "a CDATA section that is not closed"),
        ("<true", "a tag that is not closed"),
    ] {
        let said = trouble(body);
        assert!(said.contains(expected), "{body}: {said}");
    }
    assert_eq!(xml(&format!("<string>{}</string>", "&".repeat(1000))).troubles.len(), 50);
    let list = read(b"<!DOCTYPE plist [\n<!ENTITY x \"y\">\n]>\n<plist><true/></plist>");
    assert_eq!(list.troubles.iter().map(|t| t.line).collect::<Vec<_>>(), [Some(2)]);
    assert_eq!(list.value, Some(Value::Boolean(true)));
    for other in ["", " \n", "{ a = b; }", "[1]"] {
        assert!(read(other.as_bytes()).value.is_none(), "{other}");
    }
    assert!(read(b"<plist>\n<string>\xff</string></plist>").troubles[0].line == Some(2));
}

#[test]
fn cdata_and_comments_are_no_markup() {
    let list = xml("<string><!-- & --><![CDATA[a & b <c> ]] &amp;]]> &amp; d</string>");
    assert_eq!(list.troubles, []);
    assert_eq!(list.value, Some(Value::from("a & b <c> ]] &amp; & d")));
}

#[test]
fn what_is_nested_without_end_is_refused() {
    let nested = |depth: usize| xml(&format!("{}{}", "<array>".repeat(depth), "</array>".repeat(depth)));
    assert!(nested(DEPTH_MAX).value.is_some());
    let refused = nested(DEPTH_MAX + 1);
    assert!(refused.value.is_none() && refused.troubles[0].message.contains("nested more than 64 deep"));
    assert!(nested(100_000).value.is_none());
}

/// A binary list of objects, the first of which is the value.
fn binary(objects: &[&[u8]]) -> Vec<u8> {
    let mut bytes = b"bplist00".to_vec();
    let mut offsets = Vec::new();
    for object in objects {
        offsets.push(u32::try_from(bytes.len()).expect("short"));
        bytes.extend_from_slice(object);
    }
    let table = bytes.len() as u64;
    offsets.iter().for_each(|offset| bytes.extend(offset.to_be_bytes()));
    bytes.extend([0, 0, 0, 0, 0, 0, 4, 1]);
    for number in [objects.len() as u64, 0, table] {
        bytes.extend(number.to_be_bytes());
    }
    bytes
}

#[test]
fn a_binary_list_that_holds_itself_or_too_much_is_refused() {
    assert_eq!(read(&binary(&[&[0xa1, 1], &[9]])).value, Some(Value::Array(vec![Value::Boolean(true)])));
    let said = |objects: &[&[u8]]| {
        let list = read(&binary(objects));
        assert!(list.value.is_none());
        list.troubles[0].message.clone()
    };
    assert!(said(&[&[0xa1, 0]]).contains("nested more than"));
    // Twelve arrays, each of which holds the next one fourteen times.
    let doubling: Vec<Vec<u8>> = (1..=12).map(|next| [vec![0xae], vec![next; 14]].concat()).collect();
    let mut objects: Vec<&[u8]> = doubling.iter().map(Vec::as_slice).collect();
    objects.push(&[9]);
    assert!(said(&objects).contains("16 MiB"));
    assert!(said(&[&[0xa1, 7]]).contains("not there"));
    assert!(said(&[&[0xd1, 1, 2], &[0x51, b'k'], &[0xa1, 9]]).contains("(at k.0)"));
    assert!(said(&[&[0xd1, 1, 1], &[9]]).contains("a key is no text"));
    let twice = read(&binary(&[&[0xd2, 1, 1, 2, 2], &[0x51, b'k'], &[9]]));
    assert_eq!(twice.twice, [("k".to_owned(), None)]);
}

#[test]
fn no_damage_to_a_binary_list_brings_the_reader_down() {
    let theirs = Value::from_reader(Cursor::new(format!("<plist>{ALL_KINDS}</plist>"))).expect("sound");
    let mut sound = Vec::new();
    theirs.to_writer_binary(&mut sound).expect("written");
    for at in 0..sound.len() {
        let _ = read(&sound[..at]);
        for value in [0, 1, 0x0f, 0x7f, 0x80, 0xaf, 0xdf, 0xff] {
            let mut bytes = sound.clone();
            bytes[at] = value;
            let _ = read(&bytes);
        }
    }
}

#[test]
fn no_damage_to_an_xml_list_brings_the_reader_down() {
    let sound = format!("<!DOCTYPE plist [ ]><plist>{ALL_KINDS}<![CDATA[ x ]]></plist>");
    for (at, _) in sound.char_indices() {
        let _ = read(&sound.as_bytes()[..at]);
        for wrong in ["<", ">", "&", "]]>", "<!--", "<![CDATA[", "</", "/>", "\"", "\u{0}"] {
            let _ = read(format!("{}{wrong}{}", &sound[..at], &sound[at..]).as_bytes());
        }
    }
}
