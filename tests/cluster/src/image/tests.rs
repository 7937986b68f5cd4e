//! What the archives are.

use super::*;

fn image() -> Image {
    Image::new("localhost/weft/weft-proxy:dev")
        .file("/bin/weft-proxy", b"program".as_slice(), 0o755)
        .user(2102)
}

fn bytes(image: &Image) -> Vec<u8> {
    let mut bytes = Vec::new();
    image.write(&mut bytes).unwrap();
    bytes
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    assert_eq!(bytes(&image()), bytes(&image()));
    assert_ne!(bytes(&image()), bytes(&image().label("changed", "yes")));
}
