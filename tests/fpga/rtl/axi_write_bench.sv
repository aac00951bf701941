// SPDX-License-Identifier: Apache-2.0
//
// axi_write_engine with the names that cocotbext-axi looks for.

`default_nettype none

module axi_write_bench
  import accel_pkg::*;
(
  input  logic                   clk_i,
  input  logic                   rst_i,
  input  logic                   stop_i,
  output logic                   idle_o,
  output logic                   error_o,
  input  logic                   cmd_valid_i,
  output logic                   cmd_ready_o,
  input  logic [ADDR_BITS-1:0]   cmd_addr_i,
  input  logic [23:0]            cmd_beats_i,
  output logic                   done_o,
  input  logic                   valid_i,
  output logic                   ready_o,
  input  logic [BEAT_BITS-1:0]   data_i,
  output logic                   axi_awid,
  output logic [ADDR_BITS-1:0]   axi_awaddr,
  output logic [7:0]             axi_awlen,
  output logic [2:0]             axi_awsize,
  output logic [1:0]             axi_awburst,
  output logic                   axi_awvalid,
  input  logic                   axi_awready,
  output logic [BEAT_BITS-1:0]   axi_wdata,
  output logic [BEAT_BITS/8-1:0] axi_wstrb,
  output logic                   axi_wlast,
  output logic                   axi_wvalid,
  input  logic                   axi_wready,
  input  logic                   axi_bid,
  input  logic [1:0]             axi_bresp,
  input  logic                   axi_bvalid,
  output logic                   axi_bready
);

  assign axi_awid    = axi_bid && 1'b0;
  assign axi_awsize  = 3'($clog2(BEAT_BITS / 8));
  assign axi_awburst = 2'b01;

  axi_write_engine u_engine (
    .clk_i, .rst_i, .stop_i, .idle_o, .error_o,
    .cmd_valid_i, .cmd_ready_o, .cmd_addr_i, .cmd_beats_i, .done_o,
    .valid_i, .ready_o, .data_i,
    .awaddr_o(axi_awaddr), .awlen_o(axi_awlen), .awvalid_o(axi_awvalid), .awready_i(axi_awready),
    .wdata_o(axi_wdata), .wstrb_o(axi_wstrb), .wlast_o(axi_wlast), .wvalid_o(axi_wvalid), .wready_i(axi_wready),
    .bresp_i(axi_bresp), .bvalid_i(axi_bvalid), .bready_o(axi_bready)
  );

endmodule

`default_nettype wire
