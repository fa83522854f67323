//! Test vectors for keys.zig, made by Python's cryptography 50: public key, its id, a signature of "hello".

pub const p256 = .{
    .pem =
    \\-----BEGIN PUBLIC KEY-----
    \\MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEP3HDfQqN2KW34Owkbe5jTbSqq1Oj
    \\wvX6JC6X+V2/Jf2E3eEW9+JixFmi8Qh4VMJQL9Rc0dDVlflWQCrr2cNPdw==
    \\-----END PUBLIC KEY-----
    \\
    ,
    .id = "9ec7ff3aa2c2495246f7e5ccb23712fb6377a5567e15cd79e3602d40ef9379a9",
    .signature = "3045022100c2f36100cefd95ad0fd3d7550752a680e01d6bc36ee3ecb3aa9203e8a050d50c022065c629c7eb602c7f78ef545a87f6b320a47dade5121093186d655bc31c6364a2",
};

pub const ed25519 = .{
    .pem =
    \\-----BEGIN PUBLIC KEY-----
    \\MCowBQYDK2VwAyEAvutCr+lYyDT8CWXpSzEmgso/grdZ2sWyZrz4WBB38zo=
    \\-----END PUBLIC KEY-----
    \\
    ,
    .id = "fee5f59ecf9119fb115eb28a4dfedaf429f159b7d95beefa82a388f61a99e593",
    .signature = "0901b9ebaf1b785afb1a9b1e6b6bfec6c46d43efc4dbec2bfd2ca02a5d73c8c7a2f36343280f20d5b5625f9a206f12cc006803f2e16615e26f843cb776b5090b",
};
