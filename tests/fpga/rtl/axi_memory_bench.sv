// SPDX-License-Identifier: Apache-2.0
//
// axi_memory with a read engine at every read port and a write engine at the write port.

`default_nettype none

module axi_memory_bench
  import accel_pkg::*;
#(
  parameter int unsigned PORTS = 3,
  parameter int unsigned WORDS = 8192,
  parameter int unsigned LATENCY = 100,
  parameter int unsigned BYTES_PER_CYCLE_X256 = 256
) (
  input  logic                            clk_i,
  input  logic                            rst_i,
  input  logic [PORTS-1:0]                cmd_valid_i,
  output logic [PORTS-1:0]                cmd_ready_o,
  input  logic [ADDR_BITS-1:0]            cmd_addr_i,
  input  logic [23:0]                     cmd_beats_i,
  output logic [PORTS-1:0]                valid_o,
  input  logic [PORTS-1:0]                ready_i,
  output logic [PORTS-1:0][BEAT_BITS-1:0] data_o,
  output logic [PORTS-1:0]                error_o,
  output logic [PORTS-1:0]                idle_o,
  output logic [PORTS-1:0]                requests_o,
  output logic [PORTS-1:0]                beats_o,
  input  logic                            wr_cmd_valid_i,
  output logic                            wr_cmd_ready_o,
  output logic                            wr_done_o,
  output logic                            wr_error_o,
  input  logic                            wr_valid_i,
  output logic                            wr_ready_o,
  input  logic [BEAT_BITS-1:0]            wr_data_i,
  input  logic [31:0]                     fault_read_i,
  input  logic [31:0]                     fault_write_i,
  input  logic                            stall_i,
  input  logic                            dump_i,
  input  logic [31:0]                     dump_from_i,
  input  logic [31:0]                     dump_to_i
);

  logic [PORTS-1:0][ADDR_BITS-1:0] araddr;
  logic [PORTS-1:0][7:0]           arlen;
  logic [PORTS-1:0]                arvalid, arready, rlast, rvalid, rready;
  logic [PORTS-1:0][BEAT_BITS-1:0] rdata;
  logic [PORTS-1:0][1:0]           rresp;
  logic [ADDR_BITS-1:0]            awaddr;
  logic [7:0]                      awlen;
  logic                            awvalid, awready, wlast, wvalid, wready, bvalid, bready, wr_idle;
  logic [BEAT_BITS-1:0]            wdata;
  logic [BEAT_BITS/8-1:0]          wstrb;
  logic [1:0]                      bresp;

  assign requests_o = arvalid & arready;
  assign beats_o    = rvalid & rready;

  for (genvar p = 0; p < PORTS; p++) begin : gen_read
    axi_read_engine u_engine (
      .clk_i, .rst_i, .stop_i(1'b0), .idle_o(idle_o[p]), .error_o(error_o[p]),
      .cmd_valid_i(cmd_valid_i[p]), .cmd_ready_o(cmd_ready_o[p]), .cmd_addr_i, .cmd_beats_i,
      .valid_o(valid_o[p]), .ready_i(ready_i[p]), .data_o(data_o[p]),
      .araddr_o(araddr[p]), .arlen_o(arlen[p]), .arvalid_o(arvalid[p]), .arready_i(arready[p]),
      .rdata_i(rdata[p]), .rresp_i(rresp[p]), .rlast_i(rlast[p]), .rvalid_i(rvalid[p]), .rready_o(rready[p])
    );
  end

  axi_write_engine u_write (
    .clk_i, .rst_i, .stop_i(1'b0), .idle_o(wr_idle), .error_o(wr_error_o),
    .cmd_valid_i(wr_cmd_valid_i), .cmd_ready_o(wr_cmd_ready_o), .cmd_addr_i, .cmd_beats_i, .done_o(wr_done_o),
    .valid_i(wr_valid_i), .ready_o(wr_ready_o), .data_i(wr_data_i),
    .awaddr_o(awaddr), .awlen_o(awlen), .awvalid_o(awvalid), .awready_i(awready),
    .wdata_o(wdata), .wstrb_o(wstrb), .wlast_o(wlast), .wvalid_o(wvalid), .wready_i(wready),
    .bresp_i(bresp), .bvalid_i(bvalid), .bready_o(bready)
  );

  axi_memory #(
    .NUM_READ(PORTS), .WORDS(WORDS), .LATENCY(LATENCY), .BYTES_PER_CYCLE_X256(BYTES_PER_CYCLE_X256)
  ) u_memory (
    .clk_i, .rst_i,
    .araddr_i(araddr), .arlen_i(arlen), .arvalid_i(arvalid), .arready_o(arready),
    .rdata_o(rdata), .rresp_o(rresp), .rlast_o(rlast), .rvalid_o(rvalid), .rready_i(rready),
    .awaddr_i(awaddr), .awlen_i(awlen), .awvalid_i(awvalid), .awready_o(awready),
    .wdata_i(wdata), .wstrb_i(wstrb), .wlast_i(wlast), .wvalid_i(wvalid), .wready_o(wready),
    .bresp_o(bresp), .bvalid_o(bvalid), .bready_i(bready),
    .fault_read_i, .fault_write_i, .stall_i, .dump_i, .dump_from_i, .dump_to_i
  );

endmodule

`default_nettype wire
